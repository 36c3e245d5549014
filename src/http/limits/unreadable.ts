/** The error of a connection whose data cannot be parsed. Node adds the position at which its parser stopped. */
export interface UnreadableError extends Error {
  readonly code?: string;
  /** The bytes that were being parsed. */
  readonly rawPacket?: Buffer;
  /** Index in `rawPacket` at which the parser stopped. */
  readonly bytesParsed?: number;
}

/** Returns the status code and reason phrase of the response to unreadable data. */
export function toStatusLine(error: UnreadableError): string {
  if (error.code === 'HPE_HEADER_OVERFLOW') return '431 Request Header Fields Too Large';
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return '408 Request Timeout';
  if (error.code === 'HPE_INVALID_METHOD' && isInRequestLine(error)) return '501 Not Implemented';
  return '400 Bad Request';
}

/**
 * Whether the parser stopped in a complete request line. For an unknown method, it stops at the first character
 * that differs from all methods that it knows.
 */
function isInRequestLine({
  rawPacket = Buffer.alloc(0),
  bytesParsed = 0,
}: UnreadableError): boolean {
  const start = bytesParsed === 0 ? 0 : rawPacket.lastIndexOf('\n', bytesParsed - 1) + 1;
  const end = rawPacket.indexOf('\r\n', bytesParsed);
  const line = rawPacket.toString('latin1', start, end === -1 ? start : end);
  return /^[\w!#$%&'*+.^`|~-]{1,64} [\x21-\x7e]+ HTTP\/1\.[01]$/.test(line);
}
