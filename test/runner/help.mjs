// The help of `npm test -- --help`.
import { groups } from './groups.mjs';

export function formatHelp() {
  const groupLines = Object.entries(groups).map(
    ([name, parts]) => `  ${name.padEnd(20)}  files with ${parts.join(' or ')} in their path`,
  );
  return `Usage: npm test -- [<filter>…] [<option>…]

A filter is a part of the path of a test file, or the name of a group of files. Several
filters select the files that match any of them; without filters all files are run.

Groups:
${groupLines.join('\n')}

Options:
  --without <filter>    excludes files; may be repeated
  --in <folder>         searches there instead of in src and test; may be repeated
  --minutes <n>         limits the whole run, by default to 45 minutes
  --file-minutes <n>    limits each file, by default to 7 minutes
  --help                prints this text
  and any option of node --test, such as --test-name-pattern <pattern>

Environment:
  RACES=<n>             runs of each random-interleaving test, by default 30
  SEED=<seed>           repeats the run of a seeded test that has failed, as it was printed
  TEST_SUMMARY=<file>   also writes the summary of failures there

Examples:
  npm test -- src/auth login-limits
  npm test -- router --test-name-pattern 'odd method'
  RACES=300 npm test -- races`;
}
