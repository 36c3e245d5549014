// The Express example that Herald started from (arkerone/express-server-sent-event), rewritten with
// its faults, on packages of its time and over HTTP/1.1. It uses Sequelize 5, reads the user again for
// each request, runs scrypt on the event loop, and signs tokens with a constant string. It never cleans
// up its token tables, which have no index on tokens; refreshes by find, create and destroy; and writes
// three times per event and client. For `/token` and `/stream/token` it runs the statements of the
// example, one by one.
import { createHash, createHmac, randomBytes, scryptSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import cors from 'cors';
import express from 'express';
import helmet from 'helmet';
import jwt from 'jsonwebtoken';
import Sequelize from 'sequelize';

const { CERTIFICATE, PRIVATE_KEY, DATABASE_URL, ROWS = '0' } = process.env;
const { DataTypes } = Sequelize;
const secret = 'a secret that is a string, as it stood in the example';
const hour = 3_600_000;
const [accessMs, refreshMs, streamMs] = [hour, 720 * hour, hour / 12];

const sequelize = DATABASE_URL ? new Sequelize(DATABASE_URL, { logging: false }) : undefined;
const User = sequelize?.define('User', userColumns(), tableOptions('user'));
const RefreshToken = sequelize?.define(
  'RefreshToken',
  tokenColumns(),
  tokenOptions('refresh_token'),
);
const StreamToken = sequelize?.define('StreamToken', tokenColumns(), tokenOptions('stream_token'));
RefreshToken?.belongsTo(User, { as: 'user', foreignKey: 'userId' });
StreamToken?.belongsTo(User, { as: 'user', foreignKey: 'userId' });
if (sequelize !== undefined) await fill();

function userColumns() {
  return {
    username: { type: DataTypes.STRING, unique: true },
    password: { type: DataTypes.STRING, allowNull: false },
    salt: DataTypes.STRING,
    firstName: { field: 'first_name', type: DataTypes.STRING, allowNull: false },
    lastName: { field: 'last_name', type: DataTypes.STRING, allowNull: false },
  };
}

function tokenColumns() {
  return {
    token: { type: DataTypes.STRING, allowNull: false },
    expiresAt: { field: 'expires_at', type: DataTypes.DATE, allowNull: false },
    userId: {
      field: 'user_id',
      type: DataTypes.INTEGER,
      references: { model: 'user', key: 'id' },
    },
  };
}

function tableOptions(tableName) {
  return { tableName, freezeTableName: true, underscored: true };
}

function tokenOptions(tableName) {
  const hooks = {
    beforeCreate(row) {
      row.token = sha256(row.token);
    },
    beforeFind({ where }) {
      if (where?.token) where.token = sha256(where.token);
    },
  };
  return { ...tableOptions(tableName), hooks };
}

function sha256(text) {
  return createHash('sha256').update(text).digest('hex');
}

function passwordHash(password, salt) {
  return scryptSync(createHmac('sha256', salt).update(password).digest('hex'), salt, 64).toString(
    'hex',
  );
}

async function fill() {
  await sequelize.sync({ force: true });
  const salt = randomBytes(128).toString('base64');
  const password = passwordHash('correct horse battery', salt);
  const names = { firstName: 'First', lastName: 'Last' };
  await User.create({ username: 'member-1', password, salt, ...names });
  for (const table of ['refresh_token', 'stream_token']) {
    await sequelize.query(
      `insert into ${table} (token, user_id, expires_at, created_at, updated_at)
       select encode(sha256(n::text::bytea), 'hex'), 1, now() + interval '1 day', now(), now()
       from generate_series(1, ${Number(ROWS)}) n`,
    );
  }
}

async function tokensFor(user) {
  const accessToken = jwt.sign({ firstName: user.firstName, lastName: user.lastName }, secret, {
    algorithm: 'HS256',
    audience: 'bench',
    expiresIn: accessMs / 1000,
    issuer: 'bench',
    subject: user.id.toString(),
  });
  const refreshToken = randomBytes(128).toString('base64');
  const expiresAt = Date.now() + refreshMs;
  await RefreshToken.create({ userId: user.id, token: refreshToken, expiresAt });
  return {
    accessToken,
    tokenType: 'Bearer',
    accessTokenExpiresIn: accessMs,
    refreshToken,
    refreshTokenExpiresIn: refreshMs,
  };
}

async function authenticated(request, response, next) {
  try {
    const [, token] = (request.headers.authorization ?? '').split(' ');
    const { sub: id } = jwt.verify(token, secret, { algorithms: 'HS256' });
    request.user = await User.findOne({ where: { id } });
    if (!request.user) throw new Error('no such user');
    next();
  } catch {
    response.status(401).json({ name: 'invalid_token', status: 401 });
  }
}

const app = express();
app.use(express.urlencoded({ extended: false }), express.json(), helmet(), cors());
const clients = new Set();
let lastId = 0;

app.post('/login', async (request, response) => {
  const { username, password } = request.body;
  const user = await User.findOne({ where: { username } });
  if (!user || passwordHash(password, user.salt) !== user.password) {
    return response.status(401).json({ name: 'bad_credentials', status: 401 });
  }
  response.json(await tokensFor(user));
});
app.post('/token', async (request, response) => {
  const { token } = request.body;
  const refreshToken = await RefreshToken.findOne({ where: { token }, include: ['user'] });
  if (!refreshToken || refreshToken.expiresAt < new Date()) {
    return response.status(401).json({ name: 'invalid_token', status: 401 });
  }
  const tokens = await tokensFor(refreshToken.user);
  await refreshToken.destroy();
  response.json(tokens);
});
app.post('/stream/token', authenticated, async (request, response) => {
  const token = randomBytes(64).toString('hex');
  await StreamToken.create({ userId: request.user.id, token, expiresAt: Date.now() + streamMs });
  response.json({ streamToken: token, expiresIn: streamMs });
});
app.get('/stream', (request, response) => {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  response.write(':\n\n');
  clients.add(response);
  request.on('close', () => clients.delete(response));
});
app.post('/events', (request, response) => {
  lastId += 1;
  for (const client of clients) {
    client.write(`id: ${lastId}\n`);
    client.write('event: message\n');
    client.write(`data: ${JSON.stringify(request.body.data)}\n\n`);
  }
  response.status(201).json({ id: lastId });
});

const server = createServer(
  { cert: readFileSync(CERTIFICATE), key: readFileSync(PRIVATE_KEY) },
  app,
).listen(0, '127.0.0.1', () => {
  process.stdout.write(`https://127.0.0.1:${server.address().port}\n`);
});
