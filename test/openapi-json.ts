// Writes `src/openapi.json`, which Herald serves, from `docs/openapi.yaml`: `npm run openapi`.
import { writeFileSync } from 'node:fs';
import { jsonFile, renderJson } from './support/openapi/source.js';

writeFileSync(jsonFile, renderJson());
