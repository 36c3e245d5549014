import type { Migration } from './migration.js';

const ascii = 'character set ascii collate ascii_bin';
const tableOptions = 'engine = InnoDB default character set utf8mb4 collate utf8mb4_bin';

/**
 * The migrations of MariaDB. Collations are explicit, because the defaults of servers differ and
 * ignore case. Indexes and foreign keys are declared in their table, so that each statement is
 * idempotent.
 */
export const mariadbMigrations: readonly Migration[] = [
  {
    version: 1,
    name: 'init',
    statements: [
      `create table if not exists users (
        id bigint not null auto_increment primary key,
        username varchar(190) not null,
        username_key varchar(190) not null,
        password_hash varchar(255) not null,
        pepper_version smallint not null default 0,
        first_name varchar(190) not null,
        last_name varchar(190) not null,
        disabled_at bigint,
        tokens_valid_after bigint not null default 0,
        password_changed_at bigint not null,
        last_login_at bigint,
        created_at bigint not null,
        updated_at bigint not null,
        unique key users_username_key (username_key)
      ) ${tableOptions}`,

      `create table if not exists sessions (
        id char(32) ${ascii} not null primary key,
        user_id bigint not null,
        selector char(32) ${ascii} not null,
        cur_hash char(64) ${ascii} not null,
        prev_hash char(64) ${ascii},
        successor_enc varchar(255) ${ascii},
        prev_valid_until bigint not null default 0,
        generation int not null default 0,
        created_at bigint not null,
        refreshed_at bigint not null,
        idle_expires_at bigint not null,
        absolute_expires_at bigint not null,
        revoked_at bigint,
        revoke_reason varchar(16) ${ascii},
        ip_key varchar(64),
        user_agent varchar(255),
        unique key sessions_selector (selector),
        key sessions_user (user_id, revoked_at),
        key sessions_idle (idle_expires_at),
        key sessions_revoked (revoked_at),
        foreign key (user_id) references users (id) on delete cascade
      ) ${tableOptions}`,

      `create table if not exists stream_tokens (
        token_hash char(64) ${ascii} not null primary key,
        user_id bigint not null,
        session_id char(32) ${ascii} not null,
        created_at bigint not null,
        expires_at bigint not null,
        lease_until bigint,
        connection_id char(32) ${ascii},
        start_position varchar(40) ${ascii},
        takeovers int not null default 0,
        key stream_tokens_user (user_id, created_at),
        key stream_tokens_session (session_id),
        key stream_tokens_expiry (expires_at),
        key stream_tokens_lease (lease_until),
        foreign key (user_id) references users (id) on delete cascade
      ) ${tableOptions}`,

      `create table if not exists api_keys (
        id char(16) ${ascii} not null primary key,
        name varchar(64) not null,
        key_hash char(64) ${ascii} not null,
        scopes varchar(255) not null,
        created_at bigint not null,
        last_used_at bigint,
        revoked_at bigint,
        unique key api_keys_name (name),
        unique key api_keys_key_hash (key_hash)
      ) ${tableOptions}`,

      `create table if not exists events (
        seq bigint not null primary key,
        type varchar(64) ${ascii},
        data mediumtext not null,
        created_at bigint not null,
        expires_at bigint
      ) ${tableOptions}`,
      `create table if not exists event_audiences (
        audience varchar(80) ${ascii} not null,
        seq bigint not null,
        primary key (audience, seq),
        key event_audiences_seq (seq)
      ) ${tableOptions}`,

      `create table if not exists log_head (
        id int not null primary key check (id = 1),
        epoch varchar(16) ${ascii} not null,
        seq bigint not null,
        trimmed_seq bigint not null,
        bytes bigint not null
      ) ${tableOptions}`,

      `create table if not exists idempotency (
        key_hash char(64) ${ascii} not null primary key,
        body_hash char(64) ${ascii} not null,
        first_seq bigint not null,
        event_count int not null,
        expires_at bigint not null,
        key idempotency_expiry (expires_at)
      ) ${tableOptions}`,
    ],
  },
  {
    version: 2,
    name: 'neighbours',
    statements: [
      `create table if not exists processes (
        id char(16) ${ascii} not null primary key,
        users int not null,
        seen_at bigint not null,
        key processes_seen (seen_at)
      ) ${tableOptions}`,
      `create table if not exists stream_takeovers (
        connection_id char(32) ${ascii} not null primary key,
        token_hash char(64) ${ascii} not null,
        taken_at bigint not null,
        key stream_takeovers_time (taken_at)
      ) ${tableOptions}`,
    ],
  },
  {
    version: 3,
    name: 'trimmed audiences',
    statements: [
      `create table if not exists trimmed_audiences (
        bucket int not null primary key,
        seq bigint not null
      ) ${tableOptions}`,
      `insert ignore into trimmed_audiences (bucket, seq) select -1, trimmed_seq from log_head`,
    ],
  },
  {
    version: 4,
    name: 'control entries',
    statements: [
      'alter table events add column control text',
      'alter table log_head add column events bigint not null default 0',
      'update log_head set events = seq - trimmed_seq',
    ],
  },
  {
    version: 5,
    name: 'token versions',
    statements: [
      'alter table stream_tokens add column version int not null default 0',
      'drop table if exists stream_takeovers', // The column `takeovers` is unused, too; it stays.
    ],
  },
  {
    version: 6,
    name: 'event sizes',
    statements: ['alter table events add column bytes int'],
  },
  {
    version: 7,
    name: 'foreign users',
    statements: [
      `alter table api_keys add column user_prefix varchar(255) ${ascii}`,
      'alter table api_keys add column expires_at bigint',
      'alter table api_keys add column rate_max int',
      'alter table api_keys add column rate_ms bigint',

      'alter table stream_tokens modify column user_id bigint',
      // One statement, because an `add key` that was already applied cannot be skipped.
      `alter table stream_tokens add column subject varchar(255) ${ascii},
        add key stream_tokens_subject (subject, created_at)`,
      'alter table stream_tokens add column ends_at bigint',
      'alter table stream_tokens add column minted_seq bigint',
      `alter table stream_tokens add column public_id char(32) ${ascii}`,

      `alter table event_audiences modify column audience varchar(257) ${ascii} not null`,

      `create table if not exists disconnects (
        user_id varchar(255) ${ascii} not null,
        target varchar(32) ${ascii} not null,
        seq bigint not null,
        issued_before bigint not null,
        created_at bigint not null,
        primary key (user_id, target, seq),
        key disconnects_time (created_at)
      ) ${tableOptions}`,

      `create table if not exists open_streams (
        stream_id char(32) ${ascii} not null primary key,
        process_id char(16) ${ascii} not null,
        user_id varchar(255) ${ascii} not null,
        session_id char(32) ${ascii} not null,
        public_id char(32) ${ascii} not null,
        opened_at bigint not null,
        address varchar(64) ${ascii} not null,
        user_agent varchar(255),
        events_behind bigint not null default 0,
        unsent_bytes bigint not null default 0,
        key open_streams_user (user_id, opened_at),
        key open_streams_process (process_id)
      ) ${tableOptions}`,
    ],
  },
  {
    version: 8,
    name: 'topics',
    statements: [
      'alter table api_keys add column topics text',
      'alter table users add column rights text',
      'alter table stream_tokens add column rights text',
      'alter table stream_tokens add column rights_seq bigint',
      `alter table events add column topic varchar(128) ${ascii}`,

      `create table if not exists topic_members (
        user_id varchar(255) ${ascii} not null,
        topic varchar(128) ${ascii} not null,
        since bigint not null,
        rights text,
        primary key (user_id, topic),
        key topic_members_topic (topic, user_id)
      ) ${tableOptions}`,
      `create table if not exists token_topics (
        token_hash char(64) ${ascii} not null,
        topic varchar(128) ${ascii} not null,
        since bigint not null,
        primary key (token_hash, topic),
        foreign key (token_hash) references stream_tokens (token_hash) on delete cascade
      ) ${tableOptions}`,
      `create table if not exists topic_losses (
        user_id varchar(255) ${ascii} not null primary key,
        seq bigint not null
      ) ${tableOptions}`,
      `create table if not exists topic_revocations (
        user_id varchar(255) ${ascii} not null,
        topic varchar(128) ${ascii} not null,
        seq bigint not null,
        created_at bigint not null,
        primary key (user_id, topic),
        key topic_revocations_time (created_at)
      ) ${tableOptions}`,
      `create table if not exists trimmed_topics (
        topic varchar(128) ${ascii} not null primary key,
        seq bigint not null,
        key trimmed_topics_seq (seq)
      ) ${tableOptions}`,
    ],
  },
];
