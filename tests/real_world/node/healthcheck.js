'use strict';

const http = require('http');

const port = process.env.PORT;
http
  .get({ host: '127.0.0.1', port, path: '/healthz', timeout: 2000 }, (response) => {
    process.exit(response.statusCode === 200 ? 0 : 1);
  })
  .on('error', () => process.exit(1));
