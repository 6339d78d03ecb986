import { createServer, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { localPassword } from '../src/database.ts'
import { openPool } from '../src/pool.ts'
import { orgs, people } from './demo.ts'
import { readExposition } from './exposition.ts'
import { startPooler } from './pooler.ts'
import { jobsWithoutBuilder, startHook, startWorker, until, writeEvents, type Hook, type RunningWorker } from './workers.ts'
import { asLogin, createWorld, type World } from './world.ts'

let world: World
let sql: Sql
let hook: Hook
const running: RunningWorker[] = []

// {data: row} to the hook's address: a webhook each. The secret is the one of the specification's example.
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const environment = Object.fromEntries(
  ['HOOK', 'SLOW', 'PICKY', 'STUCK', 'STUCK_TOO'].map((sink) => [`ACTORSCOPE_SINK_${sink}_SECRET`, secret]))

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  hook = await startHook()
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`delete from tracking.jobs`
  await sql`truncate public.events`
  hook.clear()
})
afterEach(async () => {
  await stopAll()
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
})
afterAll(async () => {
  await hook?.close()
  await world?.close()
})

const names = (count: number, from = 1) => Array.from({ length: count }, (_, n) => `Event ${n + from}`)
const scopes = (count: number) => Array.from({ length: count }, (_, n) => `10000000-0000-4000-8000-000000000${100 + n}`)
const taken = () => hook.taken.map(({ type }) => type)

describe('delivery', () => {
  test('takes less than a second from the writing of an event', async () => {
    await createSink()
    await start({ pollMs: undefined })
    const waits: number[] = []
    for (const [n, name] of names(9).entries()) {
      await writeEvents(sql, [name])
      const since = performance.now()
      await until(() => hook.bodies.length === n + 1)
      waits.push(performance.now() - since)
    }
    expect(waits.toSorted((a, b) => a - b)[4]).toBeLessThan(1000)
  })

  // A notification takes a lock on the whole cluster when its transaction commits.
  test('is announced by no function but those that change sinks', async () => {
    expect(await sql`
      select p.oid::regproc::text as name
      from   pg_proc as p
      join   pg_namespace as n on n.oid = p.pronamespace
      where  n.nspname in ('public', 'app', 'org', 'tracking')
      and    p.prosrc ~* '\\mpg_notify\\M|\\mnotify\\s+[a-z_]+\\s*[;,]'
      order  by 1`).toEqual([{ name: 'tracking.announce_sinks' }, { name: 'tracking.rewind_sink' }])
  })

  test('begins, ends and begins anew as sinks are made, changed, disabled and rewound', async () => {
    // So that it is told, and does not find out by itself: it does in five seconds.
    await start({ pollMs: 60_000 })
    await writeEvents(sql, names(2))
    await createSink({ fromBeginning: true })
    await until(() => taken().length === 2, 4000)
    await sql`select tracking.rewind_sink('hook', '-infinity')`
    await until(() => taken().length === 4)
    await sql`update tracking.sinks set enabled = false`
    await sql`select tracking.rewind_sink('hook', '-infinity')`
    await writeEvents(sql, ['Third'])
    const other = await startHook()
    const settings = sql.json({ url: `${other.url}/hooks` })
    await sql`update tracking.sinks set settings = ${settings}, enabled = true`
    await until(() => other.taken.length === 3)
    await other.close()
    expect(taken()).toEqual([...names(2), ...names(2)])
  })

  test('goes to every sink that wants an event, at the pace of each', async () => {
    await createSink()
    await createSink({ name: 'slow' })
    await createSink({ name: 'picky', events: ['Event 2'] })
    const { lines } = await start()
    await sql`update tracking.sinks set settings = '{"url": "http://127.0.0.1:1/nobody"}' where name = 'slow'`
    await writeEvents(sql, names(3))
    await until(() => taken().length === 4)
    await until(() => lines.some(({ message, sink }) => message === 'a batch failed' && sink === 'slow'))
    expect(await readLag()).toEqual({
      hook: { delivered: 3, filtered: 0, pending: 0 },
      picky: { delivered: 1, filtered: 2, pending: 0 },
      slow: { delivered: 0, filtered: 0, pending: 3 },
    })
  })

  test('is shared by several workers, and nothing is sent twice', async () => {
    await createSink({ shards: 4 })
    await writeEvents(sql, names(200), scopes(20))
    hook.answer = (response) => void setTimeout(() => response.end('{}'), 5)
    await sql`select tracking.rewind_sink('hook', '-infinity')`
    const workers = [
      await start({ name: 'a', concurrency: 2, batchSize: 10 }),
      await start({ name: 'b', concurrency: 2, batchSize: 10 })]
    await until(async () => (await readLag()).hook?.delivered === 200)
    expect(taken().toSorted()).toEqual(names(200).toSorted())
    for (const { lines } of workers) expect(lines.some(({ message }) => message === 'a batch was delivered')).toBe(true)
  })

  test('of one shard goes on while another one is stuck', async () => {
    await createSink({ shards: 2 })
    const [one, other] = await sql<{ scope: string }[]>`
      select distinct on (tracking.shard_of(s, 2)) s as scope from unnest(${scopes(20)}::uuid[]) as s`
    hook.answer = (response, { type }) => { if (type !== 'Stuck') response.end('{}') }
    await start({ graceSeconds: 0.5 })
    await writeEvents(sql, ['Stuck'], [one!.scope])
    await until(() => hook.bodies.length === 1)
    for (const n of [1, 2, 3]) {
      await writeEvents(sql, [`Event ${n}`], [other!.scope])
      await until(() => taken().length === n, 4000) // sinks are looked at every five seconds
    }
  })

  test('to sinks that never answer holds up no other, nor the jobs', async () => {
    const stuck = await startHook(() => {})
    await createSink({ name: 'stuck', shards: 8, url: stuck.url })
    await createSink({ name: 'stuck-too', shards: 8, url: stuck.url })
    await createSink()
    await writeEvents(sql, names(40), scopes(40))
    const { lines } = await start({ jobs: true, batchSize: 1, concurrency: 8, graceSeconds: 0.5 })
    await until(() => stuck.bodies.length >= 10) // some shard may have nothing
    await until(() => taken().length === 40)
    await writeEvents(sql, ['Later'])
    await until(() => taken().includes('Later'))
    await until(() => lines.filter(({ message }) => message === 'a job is done').length >= jobsWithoutBuilder.length)
    await until(async () => (await readLag()).hook?.pending === 0)
    expect(await readLag()).toMatchObject({ 'stuck': { pending: 41 }, 'stuck-too': { pending: 41 } })
    await stopAll()
    await stuck.close()
  })

  test('needs no more rights than the service role has', async () => {
    const login = `courier_${process.pid}`
    await sql.unsafe(`create role "${login}" login password '${localPassword}' in role service_role inherit bypassrls`)
    try {
      await createSink()
      const { lines } = await start({ databaseUrl: asLogin(world.databaseUrl, login), jobs: true })
      await writeEvents(sql, names(2))
      await until(() => taken().length === 2)
      await until(() => lines.filter(({ message }) => message === 'a job is done').length >= jobsWithoutBuilder.length)
      expect(lines.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([])
    } finally {
      await stopAll()
      await sql.unsafe(`drop role "${login}"`)
    }
  })
})

describe('the database', () => {
  test.each([false, true])('may be behind a pooler in transaction mode; prepared statements: %s', async (prepare) => {
    await createSink({ shards: 4 })
    const pooler = await startPooler(world.databaseUrl)
    try {
      const { lines } = await start({ databaseUrl: pooler.url, prepare, jobs: true, batchSize: 5 })
      await writeEvents(sql, names(60), scopes(5))
      await until(() => taken().length === 60)
      await until(() => lines.filter(({ message }) => message === 'a job is done').length >= jobsWithoutBuilder.length)
      await until(async () => (await readLag()).hook?.pending === 0)
      for (const scope of scopes(5)) {
        const own = hook.taken.filter(({ data }) => data.actor_id === scope).map(({ type }) => Number(type.slice(6)))
        expect(own).toEqual(own.toSorted((a, b) => a - b))
      }
      expect(lines.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([])
      // Those would stay behind in servers that are others' next.
      expect([...pooler.statements].some((name) => name !== '')).toBe(prepare)
    } finally {
      await stopAll()
      await pooler.close()
    }
  })

  test('is asked for TLS before it is told anything, where it is elsewhere', async () => {
    let first = ''
    const server = createServer((socket: Socket) => socket.once('data', (data) => {
      first ||= data.toString('hex')
      socket.destroy()
    }))
    await new Promise<void>((done) => server.listen(0, '127.0.0.2', done))
    const elsewhere = openPool(`postgres://me:password@127.0.0.2:${(server.address() as { port: number }).port}/x`)
    elsewhere`select`.catch(() => {})
    await until(() => first)
    expect(first).toBe('0000000804d2162f') // the message SSLRequest
    await elsewhere.end({ timeout: 0 })
    server.close()
  })
})

describe('/healthz and /metrics', () => {
  const ask = async (port: number | undefined, path: string) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`)
    return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() }
  }

  test('show how the worker is, and what it has done, as Prometheus reads it', async () => {
    await createSink()
    hook.answer = (response, { type }) => void response.writeHead(type === 'Bad' ? 400 : 200).end(`a ${secret}`)
    const { port } = await start({ port: 0, name: 'w"1\\\n', jobs: true })
    await writeEvents(sql, ['Good', 'Bad', 'Better'])
    await until(async () => (await readLag()).hook?.pending === 0)
    await until(async () => (await sql`select from tracking.jobs where ended_at is not null`).length === jobsWithoutBuilder.length)
    const health = await ask(port, '/healthz')
    expect([health.status, JSON.parse(health.text)]).toEqual([
      200, { status: 'ok', worker: 'w"1\\\n', database_answered_seconds_ago: expect.any(Number) }])
    const { type, text } = await ask(port, '/metrics')
    expect(type).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(text).not.toContain(secret.slice(6))
    expect(readExposition(text)).toMatchObject({
      'actorscope_worker_info{worker="w\\"1\\\\\\n"}': 1,
      'actorscope_database_up': 1,
      'actorscope_delivered_events_total{sink="hook"}': 2,
      'actorscope_undelivered_events_total{sink="hook"}': 1,
      'actorscope_sink_pending_events{sink="hook"}': 0,
      'actorscope_sink_oldest_pending_event_age_seconds{sink="hook"}': 0,
      'actorscope_sink_delivered_events{sink="hook"}': 2,
      'actorscope_sink_undelivered_events{sink="hook"}': 1,
      'actorscope_sink_enabled{sink="hook"}': 1,
      'actorscope_lifecycle_dead_letters': 0,
      'actorscope_jobs_total{job="make-partitions",result="done"}': 1,
    })
  })

  test('are at their paths alone, whatever is asked', async () => {
    const { port } = await start({ port: 0 })
    const paths = { '/healthz?x=1': 200, '/metrics?': 200, '/': 404, '//': 404, '/healthz/': 404, '/other': 404 }
    for (const [path, status] of Object.entries(paths)) {
      expect([path, (await ask(port, path)).status]).toEqual([path, status])
    }
  })

  test('are on loopback alone', async () => {
    const { port } = await start({ port: 0 })
    const addresses = Object.values(networkInterfaces()).flat().map((one) => one!)
      .filter(({ internal, family }) => !internal && family === 'IPv4').map(({ address }) => address)
    for (const address of [...addresses, '127.0.0.2']) {
      await expect(fetch(`http://${address}:${port}/healthz`)).rejects.toThrow('fetch failed')
    }
  })
})

describe('jobs', () => {
  test('are each done by one of the workers', async () => {
    const workers = await Promise.all(['a', 'b', 'c'].map((name) => start({ name, jobs: true })))
    const done = () => workers.flatMap(({ lines }) => lines)
      .filter(({ message }) => message === 'a job is done').map(({ job }) => job)
    await until(() => done().length >= jobsWithoutBuilder.length)
    await new Promise((later) => setTimeout(later, 300))
    const all = jobsWithoutBuilder.toSorted()
    expect(done().toSorted()).toEqual(all)
    expect(await sql`select name, held_until, last_error from tracking.jobs order by name`).toEqual(
      all.map((name) => ({ name, held_until: null, last_error: null })))
  })

  test('make partitions, end builds that took too long, and write what could not be written', async () => {
    const [build] = await sql`
      insert into build_requests (owner_org, app_id, requested_by, platform)
      values (${orgs.acme}, 'com.acme.app', ${people.ada}, 'ios') returning id`
    const { id } = build!
    await sql`update build_requests set status = 'running', started_at = now() - interval '2 hours' where id = ${id}`
    await sql`
      insert into tracking.dead_letters (event, error)
      select to_jsonb(e) || jsonb_build_object(
               'event_id', i.id, 'occurred_at', tracking.event_time(i.id), 'event', 'Build Remembered'), 'x'
      from   events as e, tracking.new_event_id(now()) as i (id)
      where  e.event = 'Build Started'`
    const [{ name } = { name: '' }] = await sql<{ name: string }[]>`
      select tracking.partition_of(date_trunc('month', now() at time zone 'UTC') + interval '3 months') as name`
    await sql.unsafe(`drop table ${name}`)
    await start({ jobs: true })
    await until(async () => (await sql`select to_regclass(${name}) is not null as made`)[0]?.made)
    await until(async () => (await sql`select status from build_requests where id = ${id}`)[0]?.status === 'timed_out')
    await until(async () => (await sql`select from events where event = 'Build Remembered'`).length === 1)
    expect(await sql`select * from tracking.dead_letters`).toEqual([])
  })

  test('that fail are told of, and done again later', async () => {
    await sql`alter function tracking.make_partitions rename to make_partitions_away`
    try {
      const error = 'function tracking.make_partitions() does not exist'
      const { lines } = await start({ jobs: true })
      const failure = await until(() => lines.find(({ message }) => message === 'a job failed'))
      expect(failure).toMatchObject({ level: 'warn', job: 'make-partitions', error })
      expect(await sql`
        select last_error, due_at > now() + interval '30 minutes' as is_later
        from   tracking.jobs
        where  name = 'make-partitions'`).toEqual([{ last_error: error, is_later: true }])
    } finally {
      await sql`alter function tracking.make_partitions_away rename to make_partitions`
    }
  })
})

type SinkOptions = { name?: string, url?: string, shards?: number, events?: string[], fromBeginning?: boolean }

async function createSink(options: SinkOptions = {}): Promise<void> {
  const { name = 'hook', url = hook.url, shards = 1, events = null, fromBeginning = false } = options
  await sql`
    select tracking.create_sink(
             ${name}, 'webhook', ${sql.json({ url: `${url}/hooks` })}, from_beginning => ${fromBeginning},
             shards => ${shards}, events => ${events})`
}

async function readLag() {
  const rows = await sql`
    select sink, delivered::int, filtered::int, pending::int from tracking.sink_lag order by sink`
  return Object.fromEntries(rows.map(({ sink, ...figures }) => [sink, figures]))
}

async function start(options: Partial<Parameters<typeof startWorker>[0]> = {}): Promise<RunningWorker> {
  const worker = await startWorker({ databaseUrl: world.databaseUrl, environment, ...options })
  running.push(worker)
  return worker
}

async function stopAll(): Promise<void> {
  for (const worker of running.splice(0)) await worker.stop()
}
