import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** Common passwords that the list of the package omits. Lower case. */
const additions = `
  1g2w3e4r aa112233 correcthorsebatterystaple dearbook deadbeef g_czechout herald hotmail linkedin
  login p@$$w0rd p@55w0rd p@ssword pa$$word passphrase qqww1122 qwer qwertz rockyou theworldinyourhand
  theworldinyourhands undefined x1x2x3x4`;

/** The package omits parts of these rows, too. */
const rows = [
  '01234567890123456789',
  'abcdefghijklmnopqrstuvwxyz',
  'qwertyuiop',
  'asdfghjkl',
  'zxcvbnm',
  'azertyuiop',
  'qwertzuiop',
];
const sequences = rows.flatMap((row) => [row, [...row].reverse().join('')]).join(' ');

/** What users append to a common word: a year, `1` to `123456789`, `!`, `@123` and the like. */
const endingPattern = /((19|20)\d\d|[-@!#._]?1(2(3(4(5(6(7(89?)?)?)?)?)?)?)?|[@!]\d{0,4})?!?$/;

let loadedList: ReadonlySet<string> | undefined;

/**
 * Whether attackers guess this password first: one of about 50,000 common passwords, a repeated text, a
 * row of the alphabet or the keyboard, or one of these with a usual ending. Case does not matter.
 *
 * The first call loads the list, which takes about 60 ms. A server never calls this function, because only
 * commands set passwords.
 */
export function isCommonPassword(password: string): boolean {
  const text = password.toLowerCase();
  return isPattern(text) || isPattern(text.replace(endingPattern, ''));
}

function isPattern(text: string): boolean {
  if (text === '') return false;
  loadedList ??= loadList();
  return loadedList.has(text) || /^(.{1,8}?)\1+$/su.test(text) || sequences.includes(text);
}

function loadList(): ReadonlySet<string> {
  const {
    dictionary,
  }: typeof import('@zxcvbn-ts/language-common') = require('@zxcvbn-ts/language-common');
  return new Set([...dictionary['passwords-common'], ...additions.trim().split(/\s+/)]);
}
