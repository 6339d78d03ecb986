import { runMigrations } from 'graphile-worker'
import PgBoss from 'pg-boss'
import type { Sql } from 'postgres'

/** Events a batch, for whoever works in batches. */
export const batchSize = 500

/** Events of one transaction: a backlog is what many small ones have written. */
const perTransaction = 3

const columns = `scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, icon, description,
  tags, context, tracking_version, source`

// As large as a real client's, of 1,000 organizations: some with many events, and most with few.
const events = (id: string, count: string) => `
  select s.org, tracking.event_time(s.id), s.id, s.org, '10000000-0000-4000-8000-000000000001'::uuid, 'com.acme.app',
         'CLI Command Invoked', 'cli-usage', '🚀', 'A command of the CLI',
         jsonb_build_object(
           'app_id', 'com.acme.app', 'org_id', s.org, 'command_path', 'bundle upload', 'flags', '--apikey,--channel',
           'flags_count', 2, 'positional_arg_count', 1),
         '{"os": "darwin", "arch": "arm64", "node": "v20.11.0", "cli_version": "8.68.1", "ci": false}'::jsonb,
         2, 'client'
  from   (
    select md5((1000 * power(random(), 3))::integer::text)::uuid as org, ${id} as id
    from   generate_series(1, ${count}) as n
  ) as s`

const tools = `
  create schema bench;

  create procedure bench.write_events(transactions integer, each integer) language plpgsql as $$
  begin
    perform set_config('synchronous_commit', 'off', false);
    for t in 1..transactions loop
      insert into public.events (${columns}) ${events('tracking.new_event_id(clock_timestamp(), n)', 'each')};
      commit;
    end loop;
    perform set_config('synchronous_commit', 'on', false);
  end $$;

  -- Writes a job for each of the first events, as a trigger on the log would: as many a statement as a transaction
  -- has events. Counts what these statements take: not the making of what they carry, and not the commit.
  create procedure bench.write_jobs(queue text, events integer, each integer, inout seconds float default 0)
    language plpgsql
  as $$
  declare
    v_table    constant text := case queue when 'pg-boss' then 'pgboss.job' else 'graphile_worker._private_jobs' end;
    v_payloads jsonb[];
    v_started  timestamptz;
    v_written  integer := 0;
  begin
    perform set_config('synchronous_commit', 'off', false);
    for v_payloads in
      select array_agg(to_jsonb(e) - 'n' order by e.n)
      from   (
        select e.*, row_number() over (order by e.txid, e.event_id) - 1 as n
        from   public.events as e
        order  by e.txid, e.event_id
        limit  events
      ) as e
      group  by e.n / each
      order  by e.n / each
    loop
      v_started := clock_timestamp();
      if queue = 'pg-boss' then
        insert into pgboss.job (name, data) select 'deliver', p from unnest(v_payloads) as p;
      else
        perform graphile_worker.add_jobs(array(
          select ('deliver', p, null, null, null, null, null, null)::graphile_worker.job_spec
          from   unnest(v_payloads) as p));
      end if;
      seconds := seconds + date_part('epoch', clock_timestamp() - v_started);
      commit;
      v_written := v_written + 1;
      if v_written in (100, 1000, 10000) then -- as autovacuum would, lest the plans be those for an empty queue
        execute 'analyze ' || v_table;
      end if;
    end loop;
    perform set_config('synchronous_commit', 'on', false);
  end $$;`

/** Prepares a database for backlogs. The organizations have names, which PostHog's sink announces. */
export async function prepareBacklogs(sql: Sql): Promise<void> {
  await sql.unsafe(tools)
  await sql`delete from public.events`
  await sql`
    insert into public.orgs (id, name) select md5(n::text)::uuid, 'Org ' || n from generate_series(0, 1000) as n`
}

/** Fills the log with events that were delivered long ago. */
export async function fillLog(sql: Sql, count: number): Promise<void> {
  const portion = 50_000
  const id = `tracking.new_event_id(date_trunc('month', now()) + random() * (now() - date_trunc('month', now())))`
  let [begun, done] = [0, 0]
  const fill = async () => {
    for (let from = begun; from < count; from = begun) {
      const size = Math.min(portion, count - from)
      begun += size
      // A new database has seen a few hundred transactions: each gets its share of the events, in the table's order.
      await sql.unsafe(`
        insert into public.events (${columns}, txid)
        select e.*, (3 + 700 * ((${from} + row_number() over ()) / ${count + 1}::float))::bigint::text::xid8
        from   (${events(id, String(size))}) as e`)
      done += size
      process.stderr.write(`\rfilling the log with ${count.toLocaleString('en')} events: ${Math.floor(100 * done / count)}%`)
    }
  }
  await Promise.all([fill(), fill()])
  process.stderr.write('\n')
}

/** What is to be delivered: the events behind a snapshot. */
export type Backlog = { readonly behind: string, readonly ids: string[] }

/** The end of the log: what is committed from now on is behind it. */
export async function markEnd(sql: Sql): Promise<string> {
  const [row] = await sql<{ now: string }[]>`select pg_current_snapshot()::text as now`
  return row!.now
}

/** Writes a backlog of many small transactions at the end of the log. */
export async function writeBacklog(sql: Sql, count: number): Promise<Backlog> {
  const behind = await markEnd(sql)
  await sql.unsafe(`call bench.write_events(${Math.ceil(count / perTransaction)}, ${perTransaction})`)
  await sql`vacuum (analyze) public.events`
  const rows = await sql<{ event_id: string }[]>`
    select e.event_id
    from   public.events as e
    where  not pg_visible_in_snapshot(e.txid, ${behind}::text::pg_snapshot)
    order  by e.txid, e.event_id`
  return { behind, ids: rows.map(({ event_id }) => event_id) }
}

/** How many sinks, and how many batches of each may be under way at once. */
export type Sinks = { readonly count: number, readonly shards?: number }

/** Makes sinks that have what is behind a snapshot before them, each with an URL of its own below the given one. */
export async function createSinks(sql: Sql, { count, shards = 1 }: Sinks, behind: string, url: string): Promise<void> {
  await sql`delete from tracking.sinks`
  for (let n = 1; n <= count; n++) {
    const settings = sql.json({ host: `${url}/sink_${n}` })
    await sql`select from tracking.create_sink(${`sink_${n}`}, 'posthog', ${settings}, shards => ${shards})`
  }
  await sql`
    update tracking.cursors
    set    start_seen = ${behind}::text::pg_snapshot, seen = ${behind}::text::pg_snapshot`
  await sql`vacuum tracking.cursors, tracking.announced_orgs`
}

/** Says whether every sink is booked to have all of the backlog. */
export async function areSinksDone(sql: Sql, { ids }: Backlog): Promise<boolean> {
  const [row] = await sql<{ done: boolean }[]>`
    select bool_and(s.delivered = ${ids.length}) as done
    from   (select sum(c.delivered) as delivered from tracking.cursors as c group by c.sink) as s`
  return row!.done
}

/** The queues that carry one job an event. */
export type Queue = 'graphile-worker' | 'pg-boss'

/** Makes the tables of the queues. */
export async function installQueues(connectionString: string): Promise<void> {
  await runMigrations({ connectionString })
  const boss = new PgBoss({ connectionString, supervise: false, schedule: false })
  await boss.start()
  await boss.createQueue('deliver')
  await boss.stop({ graceful: false })
}

/**
 * Writes a job for each of the first events of the log into a queue that is empty.
 *
 * @returns the seconds that it took.
 */
export async function writeJobs(sql: Sql, queue: Queue, count: number): Promise<number> {
  const table = sql.unsafe(queue === 'pg-boss' ? 'pgboss.job' : 'graphile_worker._private_jobs')
  await sql`truncate ${table}`
  const call = `call bench.write_jobs('${queue}', ${count}, ${perTransaction})`
  const [row] = await sql.unsafe<{ seconds: number }[]>(call)
  await sql`vacuum (analyze) ${table}`
  return row!.seconds
}

/** Says whether every job of a queue is done. */
export async function areJobsDone(sql: Sql, queue: Queue): Promise<boolean> {
  const [row] = queue === 'pg-boss'
    ? await sql<{ done: boolean }[]>`select not exists (select from pgboss.job where state <> 'completed') as done`
    : await sql<{ done: boolean }[]>`select not exists (select from graphile_worker._private_jobs) as done`
  return row!.done
}
