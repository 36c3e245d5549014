/**
 * The payload of every event that is counted: `~`, a number of 10 digits, the time at which it was
 * published in microseconds, and filling. `~` stands nowhere else, so a receiver counts events
 * without parsing what stands around them, in any server's format.
 */
export function markedData(number: number, bytes: number): string {
  const time = String(nowMicros()).padStart(timeDigits, '0');
  return `~${String(number).padStart(numberDigits, '0')}${time};`.padEnd(bytes, 'x');
}

/** The clock that all processes of a machine share. */
export function nowMicros(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

const mark = 0x7e;
const zero = 0x30;
const numberDigits = 10;
const timeDigits = 15;

/** What one stream has received: how many marked events, and whether each is the one it should be. */
export class Tally {
  events = 0;
  /** Of all numbers received: with the count it tells a missing or doubled one. */
  sum = 0;
  /** Times that a number was not above the one before it. */
  disorder = 0;
  /** The longest time between two reads, of whatever. */
  silenceMicros = 0;
  #readAt = 0;
  #last = -1;
  #digit = -1;
  #number = 0;
  #time = 0;

  noteRead(now: number): void {
    const silence = this.#readAt === 0 ? 0 : now - this.#readAt;
    if (silence > this.silenceMicros) this.silenceMicros = silence;
    this.#readAt = now;
  }

  /** Counts what is in a part of a body. `onEvent` gets the time each was published. */
  feed(buffer: Buffer, start: number, end: number, onEvent: (publishedAt: number) => void): void {
    let at = start;
    while (at < end) {
      if (this.#digit === -1) {
        at = buffer.indexOf(mark, at);
        if (at === -1 || at >= end) return;
        this.#digit = 0;
        this.#number = 0;
        this.#time = 0;
        at += 1;
      }
      for (; at < end && this.#digit < numberDigits + timeDigits; at += 1, this.#digit += 1) {
        const value = (buffer[at] ?? zero) - zero;
        if (this.#digit < numberDigits) this.#number = this.#number * 10 + value;
        else this.#time = this.#time * 10 + value;
      }
      if (this.#digit < numberDigits + timeDigits) return; // The rest comes with the next part.
      this.#digit = -1;
      this.events += 1;
      this.sum += this.#number;
      if (this.#number <= this.#last) this.disorder += 1;
      this.#last = this.#number;
      onEvent(this.#time);
    }
  }

  reset(): void {
    this.events = 0;
    this.sum = 0;
    this.disorder = 0;
    this.silenceMicros = 0;
    this.#readAt = 0;
    this.#last = -1;
  }
}
