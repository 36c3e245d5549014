import { testFaults } from './support/faults.js';

await testFaults('mysql');
