/**
 * Creates the payload of a counted event: `~ | number 10 | publish time in microseconds 15 | ;`,
 * then padding up to `bytes`. `~` occurs nowhere else, so a receiver counts events without parsing
 * the format of the server.
 */
export function markedData(number: number, bytes: number): string {
  const time = String(nowMicros()).padStart(timeDigits, '0');
  return `~${String(number).padStart(numberDigits, '0')}${time};`.padEnd(bytes, 'x');
}

/** Returns the time of the clock that all processes of the machine share. */
export function nowMicros(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

const mark = 0x7e;
const zero = 0x30;
const numberDigits = 10;
const timeDigits = 15;

/** Counts the marked events that one stream has received, and checks their numbers. */
export class Tally {
  events = 0;
  /** Sum of the received numbers; with the count it reveals a missing or duplicate event. */
  sum = 0;
  /** Events whose number was not greater than the previous one. */
  disorder = 0;
  /** The longest time between two reads of any data. */
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

  /** Counts the events in a part of a body. `onEvent` is called with each publish time. */
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
      if (this.#digit < numberDigits + timeDigits) return; // Continues with the next part.
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
