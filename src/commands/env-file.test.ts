import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseEnv } from 'node:util';
import { parseEnvFile } from './env-file.js';

const notAssignment = 'is not NAME=value';
const openQuote = `${notAssignment}: its quote does not end`;
const afterQuote = `${notAssignment}: text follows the end of its quote`;
const hashInValue = 'has a # in its value: put the value in quotes';

const parse = (text: string) => {
  const { values, problems } = parseEnvFile(text);
  return { values: Object.fromEntries(values), problems };
};

// Texts that Node reads in the same way in each version.
const texts = [
  '',
  'A=1\nB=2',
  'A=1\r\nB=2\r\n',
  '# c\nA=1',
  'A = 1 ',
  'export A=1',
  'A=\nB=\r\n',
  'A=x # c\nB=#c\nC= # "c',
  'A=a b  c  \nB=a=b=\nC=x\\',
  'A=it\'s\nB=x"y',
  'A="x"\nB=\'x\'\nC=`x`',
  'A=""\nB=\'\'',
  'A= "a # b" # c\nB="x"#c',
  'A="x\ny"\nB=\'x\r\n\r\ny\'\nC=`x" y`',
  'A="x\\ny"\nB=\'x\\ny\'',
  'A="x\nB=1\n# c\n"\nC=3',
  'A=1\nA=2',
  '_a1=x',
];

for (const text of texts) {
  test(`the .env file ${JSON.stringify(text)} has the values that Node reads`, () => {
    assert.deepEqual(parse(text), { values: { ...parseEnv(text) }, problems: [] });
  });
}

// [text, values]: some versions of Node read these differently
for (const [text, values] of [
  ['A=   \nB=1', { A: '', B: '1' }],
  ['A= \r\nB=1', { A: '', B: '1' }],
  ['# c\n\nA=1\n#\n# B=2', { A: '1' }],
  ['A= \n"x"=1', { A: '' }],
  ['  A=1\n\tB=2', { A: '1', B: '2' }],
  ['  # c\n\t\nA=1\n  ', { A: '1' }],
  ['export  A=1\nexport\tB=2', { A: '1', B: '2' }],
  ['A\t=\t"x\ny"\t\nB=x\t# c', { A: 'x\ny', B: 'x' }],
] as const) {
  test(`the .env file ${JSON.stringify(text)} has the value of each line`, () => {
    assert.deepEqual(parse(text).values, values);
  });
}

// [text, problems by line, values of the other lines]
for (const [text, problems, values] of [
  ['LOG_LEVEL info\nA=1', { 1: notAssignment }, { A: '1' }],
  ['A=1\nNODE_ENV: production\nB=2', { 2: notAssignment }, { A: '1', B: '2' }],
  ['=x\nA=1\nA', { 1: notAssignment, 3: notAssignment }, { A: '1' }],
  ['export A\nexport\nB=1', { 1: notAssignment, 2: notAssignment }, { B: '1' }],
  ['A-B=1\n1A=1\nA.B=1\nA B=1\n"A"=1', { 1: notAssignment, 5: notAssignment }, {}],
  ['\u00a0A=1\n\u00e4=1\nB=1', { 1: notAssignment, 2: notAssignment }, { B: '1' }],
  ['A=1\rB=2\r', { 1: notAssignment }, {}],
  ['# c\rA=1', { 1: notAssignment }, {}],
  ['A="x\nNODE_ENV=production\nY="z"', { 1: afterQuote }, { NODE_ENV: 'production', Y: 'z' }],
  ['A="x\nB=1', { 1: openQuote }, { B: '1' }],
  ["A='\nB=1", { 1: openQuote }, { B: '1' }],
  ['A="x\ry"\nB=1', { 1: notAssignment }, { B: '1' }],
  ['A="x" y\nB=1', { 1: afterQuote }, { B: '1' }],
  ['A="a\\"b"\nB=1', { 1: afterQuote }, { B: '1' }],
  ['A="1\n2"\nB', { 3: notAssignment }, { A: '1\n2' }],
  ['A=x#y\nB=x #y', { 1: hashInValue }, { B: 'x' }],
] as const) {
  test(`the .env file ${JSON.stringify(text)} is refused with the numbers of malformed lines`, () => {
    const parsed = parse(text);

    for (const [line, problem] of Object.entries(problems))
      assert.ok(parsed.problems.includes(`.env line ${line} ${problem}`), `${parsed.problems}`);
    assert.deepEqual(parsed.values, values);
  });
}

test('.env.example has only valid lines, and Node reads the same values', () => {
  const text = readFileSync('.env.example', 'utf8');

  assert.deepEqual(parse(text), { values: { ...parseEnv(text) }, problems: [] });
});
