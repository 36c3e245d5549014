import { createHmac, randomBytes } from 'node:crypto';
import type { Logger } from './logger.js';
import type { WarningAggregator } from './warning-aggregator.js';

/**
 * Events of the OWASP Logging Vocabulary and their levels. `warn` is for events that an operator should
 * investigate.
 */
const levelByEvent = {
  authn_login_success: 'info',
  authn_login_successafterfail: 'info',
  authn_login_fail: 'info',
  authn_login_fail_max: 'warn',
  authn_login_lock: 'warn',
  authn_password_change: 'info',
  authn_token_created: 'info',
  authn_token_revoked: 'info',
  authn_token_reuse: 'warn',
  authz_change: 'info',
  session_created: 'info',
  session_renewed: 'info',
  session_expired: 'info',
  session_logout: 'info',
  excess_rate_limit_exceeded: 'warn',
  excess_sessions_exceeded: 'info',
  user_created: 'info',
  user_updated: 'info',
  user_deleted: 'info',
  user_disconnected: 'info',
  topic_members_changed: 'info',
  topic_revoked: 'info',
} as const;

export type AuditEvent = keyof typeof levelByEvent;

/** Users whom an event concerns, of whom the first are named. */
export interface AuditedUsers {
  readonly count: number;
  readonly userIds: readonly string[];
}

/** The client that caused an event. */
export interface AuditClient {
  readonly requestId: string;
  readonly ipKey: string;
  readonly userAgent: string | undefined;
}

export interface AuditFields {
  /** The requesting client; absent for a command of an operator. */
  readonly client?: AuditClient;
  readonly userId?: string;
  readonly sessionId?: string;
  readonly sessionIds?: readonly string[];
  readonly keyId?: string;
  readonly topic?: string;
  readonly added?: AuditedUsers;
  readonly removed?: AuditedUsers;
  readonly reason?: string;
  /** Whether a rotated refresh token was presented again and got the same successor. */
  readonly replayed?: boolean;
  readonly failures?: number;
  /** `pseudonym` of an unknown username, because a user may have typed a password there. */
  readonly unknownUser?: string;
}

export interface AuditOptions {
  readonly log: Logger;
  /**
   * Aggregates the lines about exceeded rate limits, which clients can trigger at will. Without it, each
   * refusal is logged.
   */
  readonly warnings?: WarningAggregator | undefined;
}

/**
 * Writes account events as log lines with `audit: true`, for later investigation. Lines never
 * contain a token, a password or a URL. Spec: OWASP Logging Vocabulary; ASVS 16.3.1.
 */
export class Audit {
  readonly #log: Logger;
  readonly #warnings: WarningAggregator | undefined;
  readonly #key = randomBytes(32);

  constructor({ log, warnings }: AuditOptions) {
    this.#log = log;
    this.#warnings = warnings;
  }

  record(event: AuditEvent, { client, ...otherFields }: AuditFields): void {
    const { requestId, ipKey, userAgent } = client ?? {};
    const fields = { audit: true, event, requestId, ipKey, userAgent, ...otherFields };
    if (event !== 'excess_rate_limit_exceeded' || this.#warnings === undefined) {
      this.#log[levelByEvent[event]](fields, 'audit');
      return;
    }
    const { userId, keyId, reason } = otherFields;
    const kind = `${event} ${reason}`;
    this.#warnings.warn({
      kind,
      subject: userId ?? keyId ?? ipKey ?? '',
      fields,
      phrase: 'audit',
    });
  }

  /**
   * Returns a keyed hash of a name, stable while the process runs. It does not disclose the name.
   */
  pseudonym(name: string): string {
    return createHmac('sha256', this.#key).update(name).digest('hex').slice(0, 16);
  }
}
