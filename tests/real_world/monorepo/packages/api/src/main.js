const { age } = require('@acme/shared');
const { readFileSync } = require('fs');

console.log(JSON.stringify({ day: age('1d'), page: readFileSync('/app/public/page.txt', 'utf8').trim() }));
