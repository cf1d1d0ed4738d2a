// graphile-worker: a job whose key is the workspace, whose time every further write moves; one local queue fetches.
import { atOnce, drive, env, jobLogged, quietMs, ready, require, together } from './driving.mjs';

const { Logger, makeWorkerUtils, run } = require('graphile-worker');
const pg = require('pg');
const [verb, first, second] = process.argv.slice(2);
const connectionString = env.BENCH_SERVER;
const logger = new Logger(() => () => {});
const due = () => new Date(Date.now() + quietMs);

if (verb === 'reset') {
  const client = new pg.Client(connectionString);
  await client.connect();
  await client.query('DROP SCHEMA IF EXISTS graphile_worker CASCADE');
  await client.end();
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  await utils.release();
} else if (verb === 'worker') {
  const job = jobLogged(first);
  const worker = { connectionString, concurrentJobs: atOnce, pollInterval: 100, maxPoolSize: 20, localQueue: { size: atOnce } };
  await run({ connectionString, logger, preset: { worker }, taskList: { restart: (payload) => job(payload.workspace) } });
  ready();
} else {
  const pgPool = new pg.Pool({ connectionString, max: 16 });
  const utils = await makeWorkerUtils({ pgPool, logger });
  const one = (workspace) => utils.addJob('restart', { workspace }, { jobKey: workspace, runAt: due() });
  const many = together((names) => utils.addJobs(
    [...new Set(names)].map((workspace) => ({ identifier: 'restart', payload: { workspace }, jobKey: workspace, runAt: due() })),
  ));
  await drive(env.BENCH_KIND === 'bulk' ? many : one, first, second);
  await utils.release();
  await pgPool.end();
}
