throw new Error('tests do not belong in the image');
