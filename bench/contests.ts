import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Sql } from 'postgres'
import { projectDir } from '../src/settings.ts'
import type { Contender, Contest } from './measure.ts'
import { clients, type Ring } from './ring.ts'

const acme = 'a0000000-0000-4000-8000-000000000001'
const ada = '10000000-0000-4000-8000-000000000001'
const columns = 'scope_id, occurred_at, event_id, org_id, actor_id, app_id, event, channel, tags, context, tracking_version, source'

/** A payload as a real client sent it, for the app and org that ada may use. */
async function recordedPayload(): Promise<Record<string, unknown> & { tags: object, nonPersonTags: object }> {
  const lines = await readFile(join(projectDir, 'tests/fixtures/capgo-cli-8.68.1.jsonl'), 'utf8')
  const payload = JSON.parse(lines.slice(0, lines.indexOf('\n')))
  return { ...payload, org_id: acme, tags: { ...payload.tags, app_id: 'com.acme.app' } }
}

const payload = await recordedPayload()
const tags = JSON.stringify({ ...payload.tags, org_id: acme })
const context = JSON.stringify(payload.nonPersonTags)

// What PostgREST does before each request.
const asAda = `select set_config('role', 'authenticated', true),
  set_config('request.jwt.claims', '{"sub": "${ada}", "role": "authenticated"}', true);`
const asNobody = `select set_config('application_name', 'bench', true),
  set_config('request.jwt.claims', '{"sub": "${ada}", "role": "authenticated"}', true);`

/** `track_event` against an insert that asks nobody, each in a transaction as PostgREST would make it. */
export function singleContest(ring: Ring): Contest {
  return { name: 'one event', unit: 'events/s', contenders: singleContenders(ring, 'ring') }
}

function singleContenders(ring: Ring, database: string): [Contender, Contender] {
  const { time, prefix } = idPrefix()
  const bare = `begin;\n${asNobody}
    insert into public.events (${columns})
    values ('${acme}', '${time}', ('${prefix}' || substr(gen_random_uuid()::text, 16))::uuid, '${acme}', '${ada}', 'com.acme.app',
      'CLI Command Invoked', 'cli-usage', (:tags)::jsonb, (:context)::jsonb, 2, 'client');\ncommit;\n`
  const rpc = `begin;\n${asAda}\nselect public.track_event((:payload)::jsonb);\ncommit;\n`
  const bout = { database, transactions: 2000, protocol: 'prepared' } as const
  return [
    { name: 'bare insert', run: () => ring.fight({ ...bout, script: bare, login: 'postgres', variables: { tags, context } }) },
    { name: 'track_event', run: () => ring.fight({ ...bout, script: rpc, login: 'authenticator', variables: { payload: JSON.stringify(payload) } }) },
  ]
}

/** What it costs that the project has declared its kinds of events: one event, or a batch, with none, off, warn and enforce. */
export function catalogContest(ring: Ring, size: number): Contest {
  const batch = JSON.stringify(Array.from({ length: size }, () => payload))
  const call = size === 1 ? 'public.track_event((:payload)::jsonb)' : `public.track_events('${batch}')`
  const run = async (mode: string | null) => {
    await ring.sql`delete from tracking.event_types`
    if (mode) await ring.sql`select from tracking.push_event_types(${ring.sql.json(declaredKinds())}, ${mode})`
    await ring.sql`analyze tracking.event_types`
    const tps = await ring.fight({
      script: `begin;\n${asAda}\nselect ${call};\ncommit;\n`, login: 'authenticator', transactions: size === 1 ? 2000 : 120,
      ...size === 1 && { protocol: 'prepared', variables: { payload: JSON.stringify(payload) } },
    })
    await ring.sql`delete from tracking.event_types`
    return tps * size
  }
  return {
    name: `${size === 1 ? 'one event' : `batches of ${size}`}, with a catalog`,
    unit: 'events/s',
    contenders: [null, 'off', 'warn', 'enforce'].map((mode) => ({ name: mode ?? 'no catalog', run: () => run(mode) })),
  }
}

/** The kind of the recorded payload, among 49 others. */
function declaredKinds() {
  const kind = {
    channel: 'cli-usage', scope: 'app',
    tags: { command_path: 'string', flags: 'string', flags_count: 'integer', positional_arg_count: 'integer' },
  }
  const others = Array.from({ length: 49 }, (_, n) => [`Kind ${n}${n % 5 === 0 ? ' *' : ''}`, kind])
  return { ...Object.fromEntries(others), 'CLI Command Invoked': kind }
}

/** `track_events` against `copy` of as many rows in a transaction, into the same table. */
export function batchContest(ring: Ring, size: number): Contest {
  const transactions = { 1: 2000, 10: 600, 100: 120, 1000: 14 }[size] ?? 10
  const batch = JSON.stringify(Array.from({ length: size }, () => payload))
  const inRows = async (tps: Promise<number>) => await tps * size
  return {
    name: `batches of ${size.toLocaleString('en')}`,
    unit: 'events/s',
    contenders: [
      { name: 'copy', run: () => inRows(copy(ring, size, transactions)) },
      {
        name: 'track_events',
        run: () => inRows(ring.fight({
          script: `begin;\n${asAda}\nselect public.track_events('${batch}');\ncommit;\n`, login: 'authenticator', transactions,
        })),
      },
    ],
  }
}

async function copy(ring: Ring, size: number, transactions: number): Promise<number> {
  const folder = join(ring.folder, 'rows')
  await mkdir(folder)
  await chmod(folder, 0o755)
  for (let client = 0; client < clients; client++) {
    for (let n = 1; n <= transactions; n++) {
      await writeFile(join(folder, `${client}-${n}.tsv`), Array.from({ length: size }, rowAsText).join(''), { mode: 0o644 })
    }
  }
  const script = `\\set n :n + 1\nbegin;\n${asNobody}\ncopy public.events (${columns}) from '${folder}/:client_id-:n.tsv';\ncommit;\n`
  const tps = await ring.fight({ script, login: 'postgres', transactions, variables: { n: '0' } })
  await rm(folder, { recursive: true })
  return tps
}

function rowAsText(): string {
  const { time, prefix } = idPrefix()
  const random = randomBytes(10).toString('hex')
  const id = `${prefix}${random.slice(0, 3)}-a${random.slice(3, 6)}-${random.slice(6, 18)}`
  return `${[acme, time, id, acme, ada, 'com.acme.app', 'CLI Command Invoked', 'cli-usage', tags, context, 2, 'client'].join('\t')}\n`
}

/** The beginning of a UUIDv7 that is made now, up to its version, and the time in it. */
function idPrefix(): { time: string, prefix: string } {
  const now = Date.now()
  const hex = now.toString(16).padStart(12, '0')
  return { time: new Date(now).toISOString(), prefix: `${hex.slice(0, 8)}-${hex.slice(8)}-7` }
}

/** A build's change of status: bare, with the lifecycle triggers, and with supa_audit instead of them. */
export function buildContest(ring: Ring): Contest {
  const transactions = 1500
  const script = `\\set n :n + 1\nupdate public.build_requests set status = 'running'
    where id = md5(:client_id || '-' || :n)::uuid;\n`
  const run = async (triggers: Triggers) => {
    await requestBuilds(ring, clients, transactions)
    await setTriggers(ring, triggers)
    return ring.fight({ script, login: 'postgres', transactions, variables: { n: '0' } })
  }
  return { name: 'a build changes its status', unit: 'updates/s', contenders: triggerContenders(ring, run) }
}

/** 10,000 builds that change their status in one statement. */
export function bulkContest(ring: Ring): Contest {
  const run = async (triggers: Triggers) => {
    await requestBuilds(ring, 1, 10_000)
    await setTriggers(ring, triggers)
    const start = performance.now()
    await ring.sql`update public.build_requests set status = 'running'`
    return 10_000 / (performance.now() - start) * 1000
  }
  return { name: '10,000 builds change their status at once', unit: 'updates/s', contenders: triggerContenders(ring, run) }
}

type Triggers = 'none' | 'lifecycle' | 'supa_audit'

function triggerContenders(ring: Ring, run: (triggers: Triggers) => Promise<number>): Contender[] {
  return [
    { name: 'no trigger', run: () => run('none') },
    { name: 'lifecycle events', run: () => run('lifecycle') },
    ...ring.supaAudit ? [{ name: 'supa_audit', run: () => run('supa_audit') }] : [],
  ]
}

async function requestBuilds(ring: Ring, owners: number, each: number): Promise<void> {
  await setTriggers(ring, 'none')
  await ring.sql`truncate public.build_requests`
  await ring.sql`
    insert into public.build_requests (id, owner_org, app_id, requested_by, platform)
    select md5(o || '-' || n)::uuid, ${acme}, 'com.acme.app', ${ada}, 'ios'
    from   generate_series(0, ${owners - 1}::int) as o, generate_series(1, ${each}::int) as n`
  await ring.sql`vacuum analyze public.build_requests`
}

async function setTriggers({ sql, supaAudit }: Ring, triggers: Triggers): Promise<void> {
  if (supaAudit) {
    const [{ installed } = { installed: false }] = await sql<{ installed: boolean }[]>`select to_regnamespace('audit') is not null as installed`
    if (!installed) await installSupaAudit(sql, supaAudit)
    await sql`select audit.disable_tracking('public.build_requests'::regclass)`
  }
  await sql.unsafe(`alter table public.build_requests ${triggers === 'lifecycle' ? 'enable' : 'disable'} trigger user`)
  if (triggers === 'supa_audit') await sql`select audit.enable_tracking('public.build_requests'::regclass)`
}

// It is made to be an extension: what only those may do is left out, and what it requires is made.
async function installSupaAudit(sql: Sql, script: string): Promise<void> {
  await sql`create extension if not exists "uuid-ossp" schema public`
  await sql.unsafe(script.replaceAll(/^select pg_catalog\.pg_extension_config_dump.*$/gm, '')).simple()
}

/** `track_event` into an empty log, and into one that holds many rows in the month that is written to. */
export async function growthContest(ring: Ring, rows: number): Promise<Contest> {
  const [, empty] = singleContenders(ring, 'ring')
  const [, grown] = singleContenders(ring, 'grown')
  await fill(await ring.furnish('grown'), rows)
  return {
    name: 'track_event as the log grows',
    unit: 'events/s',
    contenders: [
      { ...empty, name: 'into an empty log' },
      { ...grown, name: `into ${rows.toLocaleString('en')} rows` },
    ],
  }
}

/** Fills the current month with events of 1,000 orgs, some large and most small. */
async function fill(sql: Sql, rows: number): Promise<void> {
  const portion = 100_000
  for (let done = 0; done < rows; done += portion) {
    await sql`
      insert into public.events (${sql.unsafe(columns)})
      select s.org, tracking.event_time(s.id), s.id, s.org, ${ada}, 'com.acme.app', 'CLI Command Invoked', 'cli-usage',
             jsonb_set(${tags}::text::jsonb, '{org_id}', to_jsonb(s.org)), ${context}::text::jsonb, 2, 'client'
      from (
        select md5((1000 * power(random(), 3))::integer::text)::uuid as org,
               tracking.new_event_id(date_trunc('month', now()) + random() * (now() - date_trunc('month', now()))) as id
        from   generate_series(1, ${Math.min(portion, rows - done)}::int)
      ) as s`
    process.stderr.write(`\rfilling the log: ${Math.round((done + portion) / rows * 100)}%`)
  }
  process.stderr.write('\n')
  await sql`vacuum analyze public.events`
}
