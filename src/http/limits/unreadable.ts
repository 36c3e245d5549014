/** The error of a connection that cannot be read. Node adds where its parser stopped. */
export interface UnreadableError extends Error {
  readonly code?: string;
  /** The bytes that were being parsed. */
  readonly rawPacket?: Buffer;
  /** Index in `rawPacket` at which the parser stopped. */
  readonly bytesParsed?: number;
}

/** Returns the status and reason of the response to what cannot be read. */
export function toStatusLine(error: UnreadableError): string {
  if (error.code === 'HPE_HEADER_OVERFLOW') return '431 Request Header Fields Too Large';
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') return '408 Request Timeout';
  if (error.code === 'HPE_INVALID_METHOD' && isRequestLine(error)) return '501 Not Implemented';
  return '400 Bad Request';
}

/**
 * Whether the parser stopped in a complete request line, at the first character by which the method differs
 * from all that it knows.
 */
function isRequestLine({ rawPacket = Buffer.alloc(0), bytesParsed = 0 }: UnreadableError): boolean {
  const start = bytesParsed === 0 ? 0 : rawPacket.lastIndexOf('\n', bytesParsed - 1) + 1;
  const end = rawPacket.indexOf('\r\n', bytesParsed);
  const line = rawPacket.toString('latin1', start, end === -1 ? start : end);
  return /^[\w!#$%&'*+.^`|~-]{1,64} [\x21-\x7e]+ HTTP\/1\.[01]$/.test(line);
}
