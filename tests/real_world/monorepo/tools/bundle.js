// "Bundles": what is in the first folder goes to the second.
const { cpSync } = require('fs');

cpSync(process.argv[2], process.argv[3], { recursive: true });
