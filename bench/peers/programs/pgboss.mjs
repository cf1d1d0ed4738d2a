// pg-boss: upsert by key with a start time that every further write moves; its shortest polling, ten pollers.
import { atOnce, complain, drive, env, jobLogged, quietMs, ready, require } from './driving.mjs';

const { PgBoss } = require('pg-boss');
const pg = require('pg');
const [verb, first, second] = process.argv.slice(2);
const connectionString = env.BENCH_SERVER;

async function started() {
  const boss = new PgBoss({ connectionString, max: 16, schedule: false });
  boss.on('error', complain);
  await boss.start();
  return boss;
}

if (verb === 'reset') {
  const client = new pg.Client(connectionString);
  await client.connect();
  await client.query('DROP SCHEMA IF EXISTS pgboss CASCADE');
  await client.end();
  const boss = await started();
  await boss.createQueue('restart', { policy: 'singleton' });
  await boss.stop({ graceful: false });
  process.exit(0);
} else if (verb === 'worker') {
  const job = jobLogged(first);
  const boss = await started();
  const how = { batchSize: atOnce, localConcurrency: 10, pollingIntervalSeconds: 0.5 };
  await boss.work('restart', how, (jobs) => Promise.all(jobs.map((item) => job(item.data.workspace))));
  ready();
} else {
  const boss = await started();
  const send = (workspace) => boss.upsert(
    'restart', { workspace }, { singletonKey: workspace, startAfter: new Date(Date.now() + quietMs) },
  );
  await drive(send, first, second);
  await boss.stop({ graceful: false });
  process.exit(0);
}
