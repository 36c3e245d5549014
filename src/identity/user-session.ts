import type { Database } from '../db/database.js';
import type { TopicRights } from '../events/topic-rights.js';
import type { ForeignUser } from './issuers/foreign-user.js';

/** A user with an account in Herald's database. */
export interface LocalUser {
  readonly id: string;
  readonly username: string;
  readonly firstName: string;
  readonly lastName: string;
}

/** A session of a local account that has not ended. */
export interface LocalSession {
  readonly id: string;
  readonly userId: string;
  /** Time at which the session expires unless it is refreshed, epoch ms. */
  readonly expiresAt: number;
  readonly user: LocalUser;
  /** The rights of the account. */
  readonly rights: TopicRights;
  /** Whether the account has rights of its own. */
  readonly hasOwnRights?: boolean | undefined;
  /** Locks the rights of the account until the end of a transaction, and returns whether they are still the same. */
  readonly confirmRights?: ((tx: Database) => Promise<boolean>) | undefined;
  /** Number of the newest entry of the event log in the snapshot in which the session was read. */
  readonly headSeq: number;
}

/** The user of a token whose signature and claims are valid. The session is not looked up yet. */
export type VerifiedUser =
  | { readonly kind: 'local'; readonly userId: string; readonly sessionId: string | undefined }
  | ({ readonly kind: 'foreign' } & ForeignUser);

/** A session that has not ended: of a local account, or of a user whom a trusted issuer has authenticated. */
export interface UserSession
  extends Pick<
    LocalSession,
    'id' | 'userId' | 'expiresAt' | 'headSeq' | 'hasOwnRights' | 'confirmRights'
  > {
  /** What the user may do with topics, public ones included. */
  readonly rights: TopicRights;
  /** Whether the user has no account, so that nothing can extend the session. */
  readonly isForeign: boolean;
}
