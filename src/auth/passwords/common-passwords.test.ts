import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isCommonPassword } from './common-passwords.js';

/** The 100 most used passwords of 8 characters or more in the ten million that were published in 2015. */
const mostUsed = `
  password 12345678 123456789 baseball football qwertyuiop 1234567890 superman 1qaz2wsx trustno1 jennifer
  sunshine iloveyou starwars computer michelle 11111111 princess 987654321 corvette 1234qwer 88888888
  q1w2e3r4t5 internet samantha whatever maverick steelers mercedes 123123123 qwer1234 hardcore q1w2e3r4
  midnight bigdaddy victoria 1q2w3e4r cocacola marlboro asdfasdf 87654321 12344321 jordan23 jonathan
  liverpoo danielle abcd1234 scorpion qazwsxedc password1 slipknot qwerty123 startrek 12341234 redskins
  butthead asdfghjkl qwertyui liverpool dolphins nicholas elephant mountain xxxxxxxx 1q2w3e4r5t metallic
  shithead benjamin creative rush2112 asdfghjk 4815162342 passw0rd bullshit 1qazxsw2 garfield 01012011
  69696969 december 11223344 godzilla airborne lifehack brooklyn platinum darkness blink182 789456123
  12qwaszx snowball pakistan redwings williams nintendo guinness november minecraft asdf1234 lasvegas
  babygirl`;

/** Passwords of later lists, with endings of the present. */
const recent = `
  Aa123456 P@ssw0rd Pass@123 Aa@123456 Admin@123 admin123 Demo@123 adminadmin Password1 Abcd@1234 qwerty12345
  1122334455 Password@123 10203040 12345678a Welcome@123 India@123 1029384756 azertyuiop 12345678900
  bismillah Welcome1 1234554321 a1b2c3d4 Qwerty123 Test@123 111111111 zaq12wsx 1234abcd p@55w0rd P@$$w0rd
  theworldinyourhands azerty123 changeme Summer2025 winter2026! herald2026 dragon123! letmein1 iloveyou!
  linkedin2020 hahaha123 abcdefgh1 zyxwvuts 9876543210 poiuytrewq passpass Password1!`;

for (const [what, passwords] of [
  ['the 100 most used passwords', mostUsed],
  ['passwords of recent lists', recent],
] as const) {
  test(`${what} are common`, () => {
    const uncommon = passwords
      .trim()
      .split(/\s+/)
      .filter((one) => !isCommonPassword(one));

    assert.deepEqual(uncommon, []);
  });
}

test('the list of the 100 most used passwords is complete', () => {
  assert.equal(new Set(mostUsed.trim().split(/\s+/)).size, 100);
});

for (const one of [
  '',
  '2026',
  'a long and quiet river',
  'correct horse battery',
  'Tr0ub4dor&3',
  'ghj!4kzq',
  'ada-password',
  'blue whale 1',
  'kestrel over moor 2026',
  'v9Kq-123456',
]) {
  test(`${JSON.stringify(one)} is not common`, () => {
    assert.equal(isCommonPassword(one), false);
  });
}
