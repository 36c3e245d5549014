import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getUnavailableReason } from '../failures.js';
import { isConnectionLost, postgresError } from './errors.js';

const createError = (code: string): Error => Object.assign(new Error('said so'), { code });

const lostConnectionErrors = [
  ...['CONNECTION_CLOSED', 'CONNECTION_DESTROYED', 'CONNECTION_ENDED', 'CONNECT_TIMEOUT'],
  ...['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'EAI_AGAIN', 'EPIPE', 'ETIMEDOUT'],
  ...['CERT_HAS_EXPIRED', 'DEPTH_ZERO_SELF_SIGNED_CERT', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
  ...['ERR_TLS_CERT_ALTNAME_INVALID', 'ERR_SSL_WRONG_VERSION_NUMBER', 'ERR_STREAM_DESTROYED'],
];

for (const code of lostConnectionErrors) {
  test(`postgres: ${code} is a lost connection`, () => {
    const error = postgresError('select 1', createError(code));

    assert.equal(error.name, 'service_unavailable');
    assert.match(error.message, /no connection|does not answer in time/);
    assert.ok(isConnectionLost(createError(code)));
  });
}

const defects = [
  ...['ERR_INVALID_ARG_TYPE', 'ERR_OUT_OF_RANGE', 'UNDEFINED_VALUE', 'MAX_PARAMETERS_EXCEEDED'],
  ...['NOT_TAGGED_CALL', 'UNSAFE_TRANSACTION'],
].map(createError);

for (const defect of [...defects, new RangeError('past 2^53')]) {
  test(`postgres: ${'code' in defect ? defect.code : defect.name} is a defect`, () => {
    assert.match(postgresError('select 1', defect).message, /^Cannot run statement: select 1$/);
    assert.ok(!isConnectionLost(defect));
  });
}

for (const [code, reason] of [
  ['CONNECT_TIMEOUT', 'timeout'],
  ['ECONNREFUSED', 'unreachable'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'tls_failed'],
] as const) {
  test(`postgres: the reason for ${code} is ${reason}`, () => {
    assert.equal(getUnavailableReason(postgresError('select 1', createError(code))), reason);
  });
}
