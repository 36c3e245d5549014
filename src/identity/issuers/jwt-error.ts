/** Why a JWT was refused. The words are in the log, and docs/trusted-issuers.md explains them. */
export type RefusalReason =
  | 'algorithm'
  | 'audience'
  | 'expired'
  | 'issued_before'
  | 'issued_in_future'
  | 'issuer_unknown'
  | 'key'
  | 'lifetime'
  | 'malformed'
  | 'no_expiry'
  | 'no_issued_at'
  | 'not_before'
  | 'signature'
  | 'user_claim';

/** A JWT that cannot be accepted. */
export class JwtError extends Error {
  readonly reason: RefusalReason;

  constructor(reason: RefusalReason, message: string) {
    super(message);
    this.reason = reason;
  }
}
