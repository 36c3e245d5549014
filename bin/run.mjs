// node bin/run.mjs <entry> [arguments]: runs `dist/<entry>.js` in this process.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const [entry = ''] = process.argv.slice(2);
const url = new URL(`../dist/${entry}.js`, import.meta.url);
if (!hasPackages()) {
  console.error(`Cannot run ${entry}: packages are not installed; run: npm ci`);
  process.exitCode = 1;
} else if (existsSync(url)) {
  process.argv.splice(1, 2, fileURLToPath(url)); // As with `node dist/<entry>.js`.
  await import(url);
} else {
  console.error(`Cannot find dist/${entry}.js: Herald is not built yet; run: npm run build`);
  process.exitCode = 1;
}

function hasPackages() {
  try {
    import.meta.resolve('pino');
    return true;
  } catch {
    return false; // Resolution fails only when the package is missing.
  }
}
