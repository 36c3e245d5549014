// First file of a thread that runs from source: registers tsx, then imports the entry module.
import { register } from 'tsx/esm/api';

register();
await import(process.argv[2]);
