import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import type { Sql } from 'postgres'
import { projectDir } from '../src/settings.ts'
import { singleContest } from './contests.ts'
import type { Contender, Contest } from './measure.ts'
import type { Ring } from './ring.ts'

/** What drains a backlog; `bench/drainer.ts` knows how. */
export type Drainer = 'actorscope' | 'actorscope-posthog' | 'graphile-batched' | 'graphile-default' | 'pg-boss'

/** Events a batch, for whoever works in batches. */
export const batchSize = 500

/** Events of a backlog: what takes long is given less to do. */
export const backlogs: Record<Drainer, number> = {
  'actorscope': 60_000, 'actorscope-posthog': 60_000, 'graphile-batched': 20_000, 'graphile-default': 4000, 'pg-boss': 20_000 }

const perTransaction = 3

/**
 * A backlog of many small transactions, drained over local HTTP by one worker to a receiver that answers at once; and
 * the same with job queues that carry one job an event. Those write the jobs besides the events, which counts: in the
 * transactions of the events, so without waiting for the disk.
 */
export async function drainContest(ring: Ring, scale: number): Promise<Contest> {
  const { sql } = ring
  await prepare(sql)
  await sql`call bench.write_events(${Math.ceil(backlogs.actorscope * scale / perTransaction)}, ${perTransaction})`
  await sql`vacuum analyze public.events`
  const own = (name: string, drainer: Drainer, sinks: number): Contender => ({ name, run: () => drainSinks(ring, drainer, sinks, scale) })
  const others = (name: string, drainer: Drainer): Contender => ({ name, run: () => drainJobs(ring, drainer, scale) })
  return {
    name: `a backlog delivered over HTTP, batches of ${batchSize}`,
    unit: 'events/s',
    contenders: [
      others('graphile-worker, batched', 'graphile-batched'),
      others('graphile-worker, by default', 'graphile-default'),
      others('pg-boss', 'pg-boss'),
      own('actorscope, 1 sink', 'actorscope', 1),
      own('actorscope, 4 sinks', 'actorscope', 4),
      own('actorscope, PostHog', 'actorscope-posthog', 1),
    ],
  }
}

/** Draining the end of logs of other lengths. */
export async function flatContest(ring: Ring, lengths: number[], scale: number): Promise<Contest> {
  const contenders: Contender[] = []
  for (const length of lengths) {
    const database = `log_${length}`
    const sql = await ring.furnish(database)
    await prepare(sql)
    await fill(sql, length)
    await sql`call bench.write_events(${Math.ceil(backlogs.actorscope * scale / perTransaction)}, ${perTransaction})`
    await sql`vacuum analyze public.events`
    contenders.push({ name: `behind ${length.toLocaleString('en')} events`, run: () => drainSinks({ ...ring, sql }, 'actorscope', 1, scale) })
  }
  return { name: 'delivery as the log grows', unit: 'events/s', contenders }
}

/** What it costs those who send events that there are sinks. */
export async function presenceContest(ring: Ring): Promise<Contest> {
  const trackEvent = singleContest(ring).contenders.at(-1)!
  const withSinks = async (sinks: number, isDelivered: boolean) => {
    await ring.sql`delete from tracking.sinks`
    await createSinks(ring.sql, sinks, false)
    const receiver = isDelivered ? await startReceiver() : undefined
    const worker = receiver && await startDrainer('actorscope', ring.sql, receiver.url, sinks)
    worker?.go(Infinity)
    const figure = await trackEvent.run()
    await worker?.stop()
    await receiver?.stop()
    await ring.sql`delete from tracking.sinks`
    return figure
  }
  return {
    name: 'track_event beside sinks',
    unit: 'events/s',
    contenders: [
      { name: 'no sinks', run: () => withSinks(0, false) },
      { name: '4 sinks', run: () => withSinks(4, false) },
      { name: '4 sinks, a worker at them on this machine', run: () => withSinks(4, true) },
    ],
  }
}

// The rows of a backlog are as large as a real client's.
async function prepare(sql: Sql): Promise<void> {
  await sql.unsafe(`
    create schema bench;
    create procedure bench.write_events(transactions integer, each integer) language plpgsql as $$
    begin
      for n in 1..transactions loop
        insert into public.events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, icon, description, tags, context, tracking_version, source)
        select s.org, tracking.event_time(s.id), s.id, s.org, '10000000-0000-4000-8000-000000000001', 'com.acme.app', 'CLI Command Invoked', 'cli-usage', '🚀', 'A command of the CLI',
               jsonb_build_object('app_id', 'com.acme.app', 'org_id', s.org, 'command_path', 'bundle upload', 'flags', '--apikey,--channel', 'flags_count', 2, 'positional_arg_count', 1),
               '{"os": "darwin", "arch": "arm64", "node": "v20.11.0", "cli_version": "8.68.1", "ci": false}', 2, 'client'
        from   (
          select md5((1000 * power(random(), 3))::integer::text)::uuid as org, tracking.new_event_id(clock_timestamp(), m) as id
          from   generate_series(1, each) as m
        ) as s;
        commit;
      end loop;
    end $$;
    create table bench.payloads as
      select '{}'::jsonb as payload where false;
  `)
  await sql`set synchronous_commit = off`
}

async function createSinks(sql: Sql, count: number, fromBeginning: boolean): Promise<void> {
  for (let n = 1; n <= count; n++) {
    await sql`select tracking.create_sink(${`sink_${n}`}, 'posthog', '{}', from_beginning => ${fromBeginning})`
  }
}

/** Delivers the end of the log to each of so many sinks. */
async function drainSinks({ sql }: Pick<Ring, 'sql'>, drainer: Drainer, sinks: number, scale: number): Promise<number> {
  const events = Math.floor(backlogs[drainer] * scale)
  await sql`delete from tracking.sinks`
  await createSinks(sql, sinks, true)
  const [{ txid } = { txid: '1' }] = await sql<{ txid: string }[]>`select txid::text from public.events order by epoch desc, txid desc, event_id desc offset ${events - 1} limit 1`
  await sql`update tracking.cursors set start_seen = format('%1$s:%1$s:', ${txid}::text)::pg_snapshot, seen = format('%1$s:%1$s:', ${txid}::text)::pg_snapshot`
  return race(sql, drainer, events * sinks, 0, sinks)
}

/** Writes a job for each event, and has them done. */
async function drainJobs({ sql }: Ring, drainer: Drainer, scale: number): Promise<number> {
  const jobs = Math.floor(backlogs[drainer] * scale)
  const idle = await startDrainer(drainer, sql, 'http://127.0.0.1:1', 0) // makes its tables
  await idle.stop()
  await sql.unsafe(drainer === 'pg-boss' ? 'truncate pgboss.job' : 'truncate graphile_worker._private_jobs')
  await sql`truncate bench.payloads`
  await sql`insert into bench.payloads select to_jsonb(e) from public.events as e limit ${jobs}`
  const insert = drainer === 'pg-boss'
    ? `insert into pgboss.job (name, data) select 'deliver', p from unnest(v_payloads) as p`
    : `perform graphile_worker.add_jobs(array(select ('deliver', p, null, null, null, null, null, null)::graphile_worker.job_spec from unnest(v_payloads) as p))`
  const started = performance.now()
  await sql.unsafe(`
    do $$
    declare
      v_payloads ${drainer === 'pg-boss' ? 'jsonb' : 'json'}[] := '{}';
      v_payload  jsonb;
      v_n        integer := 0;
    begin
      for v_payload in select p.payload from bench.payloads as p loop
        v_payloads := v_payloads || v_payload${drainer === 'pg-boss' ? '' : '::json'};
        v_n := v_n + 1;
        if v_n % ${perTransaction} = 0 then
          ${insert};
          v_payloads := '{}';
          commit;
        end if;
      end loop;
      ${insert};
    end $$`)
  const writing = (performance.now() - started) / 1000
  await sql.unsafe(drainer === 'pg-boss' ? 'vacuum analyze pgboss.job' : 'vacuum analyze graphile_worker._private_jobs')
  return race(sql, drainer, jobs, writing, 0)
}

/** Starts a worker and a receiver, and measures how long the one takes to bring so many events to the other. */
async function race(sql: Sql, drainer: Drainer, events: number, secondsBefore: number, sinks: number): Promise<number> {
  const receiver = await startReceiver()
  const worker = await startDrainer(drainer, sql, receiver.url, sinks)
  try {
    const arrived = receiver.expect(events)
    const started = performance.now()
    worker.go(events)
    await arrived
    return events / ((performance.now() - started) / 1000 + secondsBefore)
  } finally {
    await worker.stop()
    await receiver.stop()
  }
}

type Worker = { go(events: number): void, stop(): Promise<void> }

async function startDrainer(drainer: Drainer, sql: Sql, url: string, sinks: number): Promise<Worker> {
  const { host, port, user, pass, database } = sql.options
  const databaseUrl = `postgres://${user}:${String(pass)}@${host[0]}:${port[0]}/${database}`
  const child = startProcess('bench/drainer.ts', [drainer, databaseUrl, url, String(sinks)])
  await heard(child, 'ready')
  return { go: () => void child.send('go'), stop: () => end(child) }
}

async function startReceiver(): Promise<{ url: string, expect(events: number): Promise<void>, stop(): Promise<void> }> {
  const child = startProcess('bench/receiver.ts', [])
  const { port } = await heard<{ port: number }>(child, 'ready')
  return {
    url: `http://127.0.0.1:${port}`,
    expect: async (events) => { child.send({ expect: events }); await heard(child, 'arrived') },
    stop: () => end(child),
  }
}

function startProcess(script: string, args: string[]): ChildProcess {
  return spawn(process.execPath, ['--import', 'tsx', join(projectDir, script), ...args], { cwd: projectDir, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
}

function heard<T>(child: ChildProcess, what: string): Promise<T> {
  return new Promise((done, fail) => {
    const listen = (message: { is: string } & T) => { if (message.is === what) { child.off('message', listen); done(message) } }
    child.on('message', listen)
    child.once('exit', (code) => fail(new Error(`It has ended with ${code}.`)))
  })
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const ended = new Promise((done) => child.once('exit', done))
  child.kill('SIGKILL')
  await ended
}

/** Fills the log with events that were delivered long ago: of many orgs, and of the oldest transactions there are. */
async function fill(sql: Sql, events: number): Promise<void> {
  const portion = 100_000
  for (let done = 0; done < events; done += portion) {
    await sql`
      insert into public.events (scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, tags, context, tracking_version, source, txid)
      select s.org, tracking.event_time(s.id), s.id, s.org, '10000000-0000-4000-8000-000000000001', 'com.acme.app', 'CLI Command Invoked', 'cli-usage',
             jsonb_build_object('app_id', 'com.acme.app', 'org_id', s.org, 'command_path', 'bundle upload', 'flags_count', 2),
             '{"os": "darwin", "arch": "arm64", "node": "v20.11.0"}', 2, 'client', (3 + random() * 700)::bigint::text::xid8
      from (
        select md5((1000 * power(random(), 3))::integer::text)::uuid as org,
               tracking.new_event_id(date_trunc('month', now()) + random() * (now() - date_trunc('month', now()))) as id
        from   generate_series(1, ${Math.min(portion, events - done)}::int)
      ) as s`
    process.stderr.write(`\rfilling the log: ${Math.round(Math.min(1, (done + portion) / events) * 100)}%`)
  }
  process.stderr.write('\n')
}
