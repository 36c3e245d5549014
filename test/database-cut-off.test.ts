import { testCutOffs } from './support/databases/faults.js';

await testCutOffs();
