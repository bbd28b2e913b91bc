require('assert').strictEqual(require('..').age('1s'), '1000 ms');
