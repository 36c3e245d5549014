/** Names of fields that hold a secret. */
const secretNames: ReadonlySet<string> = new Set([
  'password',
  'token',
  'refreshToken',
  'accessToken',
  'streamToken',
  'authorization',
  'cookie',
]);

const depthMax = 4;

type Fields = Record<string, unknown>;

/**
 * Returns the fields with `[Redacted]` in place of secrets, four levels deep. Returns the same
 * object when it has no secret. This is a safety net for secrets that are logged by mistake.
 *
 * pino's own redaction is not used, because it copies the fields of every line, which took ten times as
 * long as all other work for the line.
 */
export function redact(fields: Fields, depthLeft = depthMax): Fields {
  let safe: Record<string, unknown> | undefined;
  for (const name of Object.keys(fields)) {
    const value = fields[name];
    const redacted = redactValue(name, value, depthLeft);
    if (redacted === value) continue;
    safe ??= (Array.isArray(fields) ? [...fields] : { ...fields }) as Fields;
    safe[name] = redacted;
  }
  return safe ?? fields;
}

function redactValue(name: string, value: unknown, depthLeft: number): unknown {
  if (secretNames.has(name)) return '[Redacted]';
  return isRecord(value) && depthLeft > 1 ? redact(value, depthLeft - 1) : value;
}

/** Excludes errors, because the serializer converts them to fields and redacts those. */
function isRecord(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !(value instanceof Error);
}
