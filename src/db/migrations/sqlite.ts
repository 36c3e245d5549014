import type { Migration } from './migration.js';

/**
 * The migrations of SQLite. `strict` makes SQLite check types as database servers do; lengths
 * are not checked. User ids are never reused (`autoincrement`), because tokens contain them.
 */
export const sqliteMigrations: readonly Migration[] = [
  {
    version: 1,
    name: 'init',
    statements: [
      `create table users (
        id integer primary key autoincrement,
        username text not null,
        username_key text not null unique,
        password_hash text not null,
        pepper_version integer not null default 0,
        first_name text not null,
        last_name text not null,
        disabled_at integer,
        tokens_valid_after integer not null default 0,
        password_changed_at integer not null,
        last_login_at integer,
        created_at integer not null,
        updated_at integer not null
      ) strict`,

      `create table sessions (
        id text primary key not null,
        user_id integer not null references users (id) on delete cascade,
        selector text not null unique,
        cur_hash text not null,
        prev_hash text,
        successor_enc text,
        prev_valid_until integer not null default 0,
        generation integer not null default 0,
        created_at integer not null,
        refreshed_at integer not null,
        idle_expires_at integer not null,
        absolute_expires_at integer not null,
        revoked_at integer,
        revoke_reason text,
        ip_key text,
        user_agent text
      ) strict`,
      'create index sessions_user on sessions (user_id, revoked_at)',
      'create index sessions_idle on sessions (idle_expires_at)',
      'create index sessions_revoked on sessions (revoked_at)',

      `create table stream_tokens (
        token_hash text primary key not null,
        user_id integer not null references users (id) on delete cascade,
        session_id text not null,
        created_at integer not null,
        expires_at integer not null,
        lease_until integer,
        connection_id text,
        start_position text,
        takeovers integer not null default 0
      ) strict`,
      'create index stream_tokens_user on stream_tokens (user_id, created_at)',
      'create index stream_tokens_session on stream_tokens (session_id)',
      'create index stream_tokens_expiry on stream_tokens (expires_at)',
      'create index stream_tokens_lease on stream_tokens (lease_until)',

      `create table api_keys (
        id text primary key not null,
        name text not null unique,
        key_hash text not null unique,
        scopes text not null,
        created_at integer not null,
        last_used_at integer,
        revoked_at integer
      ) strict`,

      `create table events (
        seq integer primary key,
        type text,
        data text not null,
        created_at integer not null,
        expires_at integer
      ) strict`,
      `create table event_audiences (
        audience text not null,
        seq integer not null,
        primary key (audience, seq)
      ) strict, without rowid`,
      'create index event_audiences_seq on event_audiences (seq)',

      `create table log_head (
        id integer primary key check (id = 1),
        epoch text not null,
        seq integer not null,
        trimmed_seq integer not null,
        bytes integer not null
      ) strict`,

      `create table idempotency (
        key_hash text primary key not null,
        body_hash text not null,
        first_seq integer not null,
        event_count integer not null,
        expires_at integer not null
      ) strict`,
      'create index idempotency_expiry on idempotency (expires_at)',
    ],
  },
  {
    version: 2,
    name: 'neighbours',
    statements: [
      `create table processes (
        id text primary key not null,
        users integer not null,
        seen_at integer not null
      ) strict`,
      'create index processes_seen on processes (seen_at)',
      `create table stream_takeovers (
        connection_id text primary key not null,
        token_hash text not null,
        taken_at integer not null
      ) strict`,
      'create index stream_takeovers_time on stream_takeovers (taken_at)',
    ],
  },
  {
    version: 3,
    name: 'trimmed audiences',
    statements: [
      `create table trimmed_audiences (
        bucket integer primary key,
        seq integer not null
      ) strict`,
      'insert into trimmed_audiences (bucket, seq) select -1, trimmed_seq from log_head',
    ],
  },
  {
    version: 4,
    name: 'control entries',
    statements: [
      'alter table events add column control text',
      'alter table log_head add column events integer not null default 0',
      'update log_head set events = seq - trimmed_seq',
    ],
  },
  {
    version: 5,
    name: 'token versions',
    statements: [
      'alter table stream_tokens add column version integer not null default 0',
      'drop table if exists stream_takeovers', // The column `takeovers` is unused, too; it stays.
    ],
  },
  {
    version: 6,
    name: 'event sizes',
    statements: ['alter table events add column bytes integer'],
  },
  {
    version: 7,
    name: 'foreign users',
    statements: [
      'alter table api_keys add column user_prefix text',
      'alter table api_keys add column expires_at integer',
      'alter table api_keys add column rate_max integer',
      'alter table api_keys add column rate_ms integer',

      // SQLite cannot drop the `not null` of `user_id`, so the table is copied.
      `create table stream_tokens_new (
        token_hash text primary key not null,
        user_id integer references users (id) on delete cascade,
        session_id text not null,
        created_at integer not null,
        expires_at integer not null,
        lease_until integer,
        connection_id text,
        start_position text,
        takeovers integer not null default 0,
        version integer not null default 0,
        subject text,
        ends_at integer,
        minted_seq integer,
        public_id text
      ) strict`,
      `insert into stream_tokens_new (token_hash, user_id, session_id, created_at, expires_at,
          lease_until, connection_id, start_position, takeovers, version)
        select token_hash, user_id, session_id, created_at, expires_at,
          lease_until, connection_id, start_position, takeovers, version
        from stream_tokens`,
      'drop table stream_tokens',
      'alter table stream_tokens_new rename to stream_tokens',
      'create index stream_tokens_user on stream_tokens (user_id, created_at)',
      'create index stream_tokens_session on stream_tokens (session_id)',
      'create index stream_tokens_expiry on stream_tokens (expires_at)',
      'create index stream_tokens_lease on stream_tokens (lease_until)',
      'create index stream_tokens_subject on stream_tokens (subject, created_at)',

      `create table disconnects (
        user_id text not null,
        target text not null,
        seq integer not null,
        issued_before integer not null,
        created_at integer not null,
        primary key (user_id, target, seq)
      ) strict, without rowid`,
      'create index disconnects_time on disconnects (created_at)',

      `create table open_streams (
        stream_id text primary key not null,
        process_id text not null,
        user_id text not null,
        session_id text not null,
        public_id text not null,
        opened_at integer not null,
        address text not null,
        user_agent text,
        events_behind integer not null default 0,
        unsent_bytes integer not null default 0
      ) strict`,
      'create index open_streams_user on open_streams (user_id, opened_at)',
      'create index open_streams_process on open_streams (process_id)',
    ],
  },
  {
    version: 8,
    name: 'topics',
    statements: [
      'alter table api_keys add column topics text',
      'alter table users add column rights text',
      'alter table stream_tokens add column rights text',
      'alter table stream_tokens add column rights_seq integer',
      'alter table events add column topic text',

      `create table topic_members (
        user_id text not null,
        topic text not null,
        since integer not null,
        rights text,
        primary key (user_id, topic)
      ) strict, without rowid`,
      'create index topic_members_topic on topic_members (topic, user_id)',
      `create table token_topics (
        token_hash text not null references stream_tokens (token_hash) on delete cascade,
        topic text not null,
        since integer not null,
        primary key (token_hash, topic)
      ) strict, without rowid`,
      `create table topic_losses (
        user_id text not null primary key,
        seq integer not null
      ) strict, without rowid`,
      `create table topic_revocations (
        user_id text not null,
        topic text not null,
        seq integer not null,
        created_at integer not null,
        primary key (user_id, topic)
      ) strict, without rowid`,
      'create index topic_revocations_time on topic_revocations (created_at)',
      `create table trimmed_topics (
        topic text not null primary key,
        seq integer not null
      ) strict, without rowid`,
      'create index trimmed_topics_seq on trimmed_topics (seq)',
    ],
  },
];
