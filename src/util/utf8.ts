const strictDecoder = new TextDecoder('utf-8', { fatal: true });

/** Decodes UTF-8 and omits a byte order mark at the start. Returns undefined for other encodings. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return undefined; // The decoder throws only for invalid bytes.
  }
}
