import assert from 'node:assert/strict';
import { until } from '../until.js';
import type { H2Client } from './h2-client.js';

/** A server to publish to. */
interface PublishTarget {
  readonly backend: H2Client;
}

/** Publishes events, and retries each with its idempotency key. Collects their ids and counts refusals. */
export class Publisher {
  readonly ids: string[] = [];
  refused = 0;
  readonly #name: string;
  readonly #backend: H2Client;
  readonly #key: string;

  constructor(name: string, { backend }: PublishTarget, key: string) {
    this.#name = name;
    this.#backend = backend;
    this.#key = key;
  }

  /**
   * Publishes events while `shouldContinue` returns true, and retries each until it is acknowledged.
   * Rejects when its client is closed.
   */
  async publishWhile(shouldContinue: () => boolean): Promise<void> {
    while (shouldContinue()) {
      const number = this.ids.length;
      while (!(await this.#tryPublish(number))) this.refused += 1;
    }
  }

  async #tryPublish(number: number): Promise<boolean> {
    const json = { to: 'all', data: { by: this.#name, number } };
    const headers = { 'idempotency-key': `${this.#name}-${number}` };
    const request = { bearer: this.#key, json, headers };
    const answer = await this.#backend.ask('POST', '/events', request);
    if (answer.status === 201) {
      this.ids.push(String(answer.body['id']));
      return true;
    }
    assert.equal(answer.status, 503, JSON.stringify(answer.body));
    assert.match(answer.headers['retry-after'] ?? '', /^[1-9]\d*$/);
    return false;
  }
}

/** Publishers that run at the same time. The first failure stops all of them and rejects pending waits. */
export class PublishLoad {
  readonly publishers: readonly Publisher[];
  readonly #all: Promise<unknown>;
  #isRunning = true;

  constructor(publishers: readonly Publisher[]) {
    this.publishers = publishers;
    const runs = publishers.map((one) => one.publishWhile(() => this.#isRunning));
    this.#all = Promise.all(runs);
    this.#all.catch(() => {
      this.#isRunning = false;
    });
  }

  static start(
    targets: readonly PublishTarget[],
    { perTarget, key }: { perTarget: number; key: string },
  ): PublishLoad {
    return new PublishLoad(
      targets.flatMap((target, index) =>
        Array.from(
          { length: perTarget },
          (_, number) => new Publisher(`${index}-${number}`, target, key),
        ),
      ),
    );
  }

  /** Settles when every publisher has `more` acknowledged events more than any publisher has now. */
  async waitForAcknowledged(more: number): Promise<void> {
    const count = Math.max(...this.publishers.map(({ ids }) => ids.length)) + more;
    await this.#until(() => this.publishers.every(({ ids }) => ids.length >= count));
  }

  /** Settles when each publisher has had a further refusal. */
  async waitForRefusals(): Promise<void> {
    const before = this.publishers.map(({ refused }) => refused);
    await this.#until(() =>
      this.publishers.every(({ refused }, index) => refused !== before[index]),
    );
  }

  async stop(): Promise<void> {
    this.#isRunning = false;
    await this.#all;
  }

  #until(condition: () => boolean): Promise<unknown> {
    return Promise.race([this.#all, until(() => condition() || !this.#isRunning)]);
  }
}
