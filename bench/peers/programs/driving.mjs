// What every Node peer shares: sending a plan, logging jobs, and waiting for what is sent together.
import { readFileSync, appendFileSync, writeFileSync, openSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';

export const env = process.env;
export const quietMs = Number(env.BENCH_QUIET_S) * 1000;
export const atOnce = Number(env.BENCH_JOBS_AT_ONCE);
export const require = createRequire(env.BENCH_NODE_FOLDER + '/package.json');
export const now = () => process.hrtime.bigint();
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A job as long as every peer's, with its stamps in the worker's log. */
export function jobLogged(log) {
  const file = openSync(log, 'a');
  return async (workspace) => {
    const began = now();
    await pause(Number(env.BENCH_JOB_S) * 1000);
    writeSync(file, `${workspace} ${began} ${now()}\n`);
  };
}

/** Send the plan: what is due at once from `inFlight` senders, the rest each at its instant. */
export async function drive(send, planFile, logFile) {
  const plan = JSON.parse(readFileSync(planFile, 'utf8'));
  const lines = [];
  const one = async (workspace) => {
    const sent = now();
    await send(workspace);
    lines.push(`${workspace} ${sent} ${now()}\n`);
  };
  const inFlight = Number(env.BENCH_IN_FLIGHT);
  const atOnceOnly = plan.every(([at]) => at === 0);
  if (atOnceOnly) {
    let next = 0;
    const sender = async () => { while (next < plan.length) await one(plan[next++][1]); };
    await Promise.all(Array.from({ length: inFlight }, sender));
  } else {
    const began = now();
    const under = [];
    for (const [at, workspace] of plan) {
      const wait = at * 1000 - Number(now() - began) / 1e6;
      if (wait > 1) await pause(wait);
      under.push(one(workspace));
    }
    await Promise.all(under);
  }
  writeFileSync(logFile, lines.join(''));
}

/** Sends that wait at the same time go out in bulk calls of a hundred at most, several of them under way at once. */
export function together(bulk) {
  let waiting = [];
  const call = async (group) => {
    try {
      await bulk(group.map((item) => item.workspace));
      group.forEach((item) => item.resolve());
    } catch (error) {
      group.forEach((item) => item.reject(error));
    }
  };
  const flush = () => { while (waiting.length > 0) call(waiting.splice(0, 100)); };
  return (workspace) => new Promise((resolve, reject) => {
    waiting.push({ workspace, resolve, reject });
    if (waiting.length === 1) setImmediate(flush);
  });
}

/** Keep the process and say that its worker is ready. */
export const ready = () => console.log('ready');
export const complain = (error) => appendFileSync(2, String(error).slice(0, 400) + '\n');
