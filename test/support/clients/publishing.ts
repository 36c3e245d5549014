import assert from 'node:assert/strict';
import { until } from '../until.js';
import type { H2Client } from './h2-client.js';

/** A way to a Herald. */
interface Way {
  readonly backend: H2Client;
}

/** What a publisher that tries again with the same key comes to know. */
export class Publisher {
  readonly ids: string[] = [];
  refused = 0;
  readonly #name: string;
  readonly #backend: H2Client;
  readonly #key: string;

  constructor(name: string, { backend }: Way, key: string) {
    this.#name = name;
    this.#backend = backend;
    this.#key = key;
  }

  /** Publishes until told to stop, each event until it is acknowledged, or its client is closed. */
  async publishWhile(isGoingOn: () => boolean): Promise<void> {
    while (isGoingOn()) {
      const number = this.ids.length;
      while (!(await this.#isTaken(number))) this.refused += 1;
    }
  }

  async #isTaken(number: number): Promise<boolean> {
    const json = { to: 'all', data: { by: this.#name, number } };
    const headers = { 'idempotency-key': `${this.#name}-${number}` };
    const question = { bearer: this.#key, json, headers };
    const answer = await this.#backend.ask('POST', '/events', question);
    if (answer.status === 201) {
      this.ids.push(String(answer.body['id']));
      return true;
    }
    assert.equal(answer.status, 503, JSON.stringify(answer.body));
    assert.match(answer.headers['retry-after'] ?? '', /^[1-9]\d*$/);
    return false;
  }
}

/** Publishers at work. The first that fails ends them all, and whatever waits for them. */
export class Publishing {
  readonly publishers: readonly Publisher[];
  readonly #all: Promise<unknown>;
  #isGoingOn = true;

  constructor(publishers: readonly Publisher[]) {
    this.publishers = publishers;
    const works = publishers.map((one) => one.publishWhile(() => this.#isGoingOn));
    this.#all = Promise.all(works);
    this.#all.catch(() => {
      this.#isGoingOn = false;
    });
  }

  static at(sides: readonly Way[], { each, key }: { each: number; key: string }): Publishing {
    return new Publishing(
      sides.flatMap((side, index) =>
        Array.from({ length: each }, (_, number) => new Publisher(`${index}-${number}`, side, key)),
      ),
    );
  }

  /** Settles when each has so many more acknowledged than any has now. */
  async acknowledged(more: number): Promise<void> {
    const count = Math.max(...this.publishers.map(({ ids }) => ids.length)) + more;
    await this.#until(() => this.publishers.every(({ ids }) => ids.length >= count));
  }

  /** Settles when each was refused once more. */
  async refused(): Promise<void> {
    const before = this.publishers.map(({ refused }) => refused);
    await this.#until(() =>
      this.publishers.every(({ refused }, index) => refused !== before[index]),
    );
  }

  async stop(): Promise<void> {
    this.#isGoingOn = false;
    await this.#all;
  }

  #until(isSo: () => boolean): Promise<unknown> {
    return Promise.race([this.#all, until(() => isSo() || !this.#isGoingOn)]);
  }
}
