'use strict';

const express = require('express');
const pino = require('pino');

const log = pino();
const app = express();

app.get('/healthz', (request, response) => response.send('healthy'));
app.get('/hello/:name', (request, response) => response.json({ hello: request.params.name }));

const server = app.listen(process.env.PORT, () => log.info({ port: process.env.PORT }, 'listening'));
process.on('SIGTERM', () => server.close());
