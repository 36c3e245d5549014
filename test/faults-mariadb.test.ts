import { testFaults } from './support/databases/faults.js';

await testFaults('mariadb');
