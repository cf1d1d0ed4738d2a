// BullMQ: a delayed job a workspace, put off by every further write (its deduplication's debounce mode).
import { atOnce, drive, env, jobLogged, quietMs, ready, require, together } from './driving.mjs';

const { Queue, Worker } = require('bullmq');
const Redis = require('ioredis');
const [verb, first, second] = process.argv.slice(2);
const connection = new Redis(env.BENCH_SERVER, { maxRetriesPerRequest: null });
const options = (workspace) => ({
  delay: quietMs, deduplication: { id: workspace, ttl: quietMs, extend: true, replace: true },
});

if (verb === 'reset') {
  await connection.flushall();
  process.exit(0);
} else if (verb === 'worker') {
  const job = jobLogged(first);
  new Worker('restarts', (item) => job(item.data.workspace), { connection, concurrency: atOnce });
  ready();
} else {
  const queue = new Queue('restarts', { connection });
  const add = (workspace) => queue.add('restart', { workspace }, options(workspace));
  const addBulk = together((names) => queue.addBulk(
    names.map((workspace) => ({ name: 'restart', data: { workspace }, opts: options(workspace) })),
  ));
  await drive(env.BENCH_KIND === 'bulk' ? addBulk : add, first, second);
  process.exit(0);
}
