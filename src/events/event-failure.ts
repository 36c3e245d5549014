import { Failure } from '../errors.js';

/** Creates the failure of one event. Message and `info` contain `index` unless it is undefined. */
export function createEventFailure(
  name:
    | 'invalid_request'
    | 'payload_too_large'
    | 'missing_required_parameter'
    | 'conflict'
    | 'user_not_allowed'
    | 'topic_not_allowed',
  reason: string,
  { index, ...info }: { index: number | undefined; [key: string]: unknown },
): Failure {
  const message = `Cannot publish: ${reason}`;
  if (index === undefined) return new Failure(name, message, { info });
  return new Failure(name, `${message} (event at index ${index})`, { info: { ...info, index } });
}
