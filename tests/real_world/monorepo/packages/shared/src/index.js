const ms = require('ms');

exports.age = (text) => `${ms(text)} ms`;
