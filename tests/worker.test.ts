import { connect as connectTo, createServer, type AddressInfo, type Socket } from 'node:net'
import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { connect, localPassword } from '../src/database.ts'
import { freePort, startPostgres } from '../src/postgres.ts'
import { people } from './demo.ts'
import { startHook, startCommand, startWorker, until, writeEvents, type Hook, type Process, type RunningWorker } from './workers.ts'
import { asLogin, createWorld, furnish, temporaryFolder, type World } from './world.ts'

let world: World
let sql: Sql
let hook: Hook
const running: (Process | RunningWorker)[] = []

// {data: row} to the hook's address: a webhook each. The secret is the one of the specification's example.
const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const environment = { ACTORSCOPE_SINK_HOOK_SECRET: secret }

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  hook = await startHook()
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`delete from tracking.jobs`
  await sql`truncate public.events`
  hook.bodies.length = hook.taken.length = hook.requests.length = 0
  hook.answer = (response) => void response.end('{}')
})
afterEach(async () => {
  for (const one of running.splice(0)) {
    if ('stop' in one) await one.stop()
    else { one.kill('SIGKILL'); await one.exited }
  }
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
})
afterAll(async () => {
  await hook?.close()
  await world?.close()
})

const names = (count: number, from = 1) => Array.from({ length: count }, (_, n) => `Event ${n + from}`)
const taken = () => hook.taken.map(({ type }) => type)

test('an event is out within a second', async () => {
  await createSink()
  await start()
  const waits: number[] = []
  for (const [n, name] of names(9).entries()) {
    await writeEvents(sql, [name])
    const since = performance.now()
    await until(() => hook.bodies.length === n + 1)
    waits.push(performance.now() - since)
  }
  expect(waits.toSorted((a, b) => a - b)[4]).toBeLessThan(1000)
})

test('sinks that are made, changed, disabled or rewound are noticed', async () => {
  await start({ pollMs: 60_000 }) // so that it is told, and does not find out by itself
  await writeEvents(sql, names(2))
  await createSink({ fromBeginning: true })
  await until(() => taken().length === 2)
  await sql`select tracking.rewind_sink('hook', '-infinity')`
  await until(() => taken().length === 4)
  await sql`update tracking.sinks set enabled = false`
  await sql`select tracking.rewind_sink('hook', '-infinity')`
  await writeEvents(sql, ['Third'])
  const other = await startHook()
  await sql`update tracking.sinks set settings = ${sql.json({ url: `${other.url}/hooks` })}, enabled = true`
  await until(() => other.taken.length === 3)
  await other.close()
  expect(taken()).toEqual([...names(2), ...names(2)])
})

test('an event goes to every sink that wants it, each at its own pace', async () => {
  await createSink()
  await createSink({ name: 'slow' })
  await createSink({ name: 'picky', events: ['Event 2'] })
  const { lines } = await start({ environment: { ...environment, ACTORSCOPE_SINK_SLOW_SECRET: secret, ACTORSCOPE_SINK_PICKY_SECRET: secret } })
  await sql`update tracking.sinks set settings = '{"url": "http://127.0.0.1:1/nobody"}' where name = 'slow'`
  await writeEvents(sql, names(3))
  await until(() => taken().length === 4)
  await until(() => lines.some(({ message, sink }) => message === 'a batch failed' && sink === 'slow'))
  expect(await sql`select sink, delivered::int, filtered::int, pending::int from tracking.sink_lag order by sink`).toEqual([
    { sink: 'hook', delivered: 3, filtered: 0, pending: 0 }, { sink: 'picky', delivered: 1, filtered: 2, pending: 0 }, { sink: 'slow', delivered: 0, filtered: 0, pending: 3 }])
})

test('several workers share the work, and nothing is sent twice', async () => {
  await createSink({ shards: 4 })
  const scopes = Array.from({ length: 20 }, (_, n) => `10000000-0000-4000-8000-0000000001${String(n).padStart(2, '0')}`)
  await writeEvents(sql, names(200), scopes)
  hook.answer = (response) => void setTimeout(() => response.end('{}'), 5)
  await sql`select tracking.rewind_sink('hook', '-infinity')`
  const workers = [await start({ name: 'a', concurrency: 2, batchSize: 10 }), await start({ name: 'b', concurrency: 2, batchSize: 10 })]
  await until(() => taken().length >= 200)
  await until(async () => (await sql`select delivered::int as n from tracking.sink_lag`)[0]?.n === 200)
  expect(taken().toSorted()).toEqual(names(200).toSorted())
  for (const { lines } of workers) expect(lines.some(({ message }) => message === 'a batch was delivered')).toBe(true)
})

describe('a worker that is a process of its own', () => {
  test('finishes its batch when it is told to end, and ends well', async () => {
    await createSink()
    let begun = false
    hook.answer = (response) => { begun = true; setTimeout(() => response.end('{}'), 500) }
    const worker = command()
    await worker.untilTold('the worker begins')
    await writeEvents(sql, ['First'])
    await until(() => begun)
    worker.kill('SIGTERM')
    await writeEvents(sql, ['Second'])
    expect(await worker.exited).toBe(0)
    expect(taken()).toEqual(['First'])
    expect(await sql`select delivered::int, pending::int, failures from tracking.sink_lag`).toEqual([{ delivered: 1, pending: 1, failures: 0 }])
  })

  test('ends within its grace where the sink does not answer, and hands the rest on', async () => {
    await createSink()
    await writeEvents(sql, names(3))
    await sql`select tracking.rewind_sink('hook', '-infinity')`
    hook.answer = (response, { type }) => { if (type === 'Event 1') response.end('{}') }
    const worker = command('--grace', '3s')
    await until(() => hook.bodies.length === 2)
    worker.kill('SIGINT')
    expect(await worker.exited).toBe(0)
    expect(await sql`select c.delivered::int, c.leased_until <= clock_timestamp() as free from tracking.cursors as c`).toEqual([{ delivered: 1, free: true }])
    hook.answer = (response) => void response.end('{}')
    await start()
    await until(() => taken().length === 3)
    expect(taken()).toEqual(names(3))
  })

  test('leaves what it had to another when it is killed, as soon as its lease has ended', async () => {
    await createSink()
    hook.answer = () => {} // never answers
    const worker = command('--lease', '2s')
    await worker.untilTold('the worker begins')
    await writeEvents(sql, names(2))
    await until(() => hook.bodies.length === 1)
    worker.kill('SIGKILL')
    expect(await worker.exited).toBe('SIGKILL')
    hook.answer = (response) => void response.end('{}')
    await start()
    await until(() => taken().length === 2)
    expect(taken()).toEqual(names(2))
  })

  test('tells what it does as JSON, and no secret, whatever the sink says', async () => {
    await createSink()
    hook.answer = (response) => void response.writeHead(500).end(`no: ${secret} and ${localPassword}word`)
    const worker = command('--verbose')
    await worker.untilTold('the worker begins')
    await writeEvents(sql, ['First'])
    const failure = await worker.untilTold('a batch failed')
    expect(failure).toMatchObject({ level: 'warn', sink: 'hook', delivered: 0, error: expect.stringMatching(/^500 no: \*\*\*/) })
    worker.kill('SIGTERM')
    await worker.exited
    expect(worker.output()).toBe('')
    expect(worker.told().split('\n').filter(Boolean).every((line) => JSON.parse(line).time)).toBe(true)
    expect(worker.told()).not.toContain(secret.slice(6))
  })

  test('tells people what it does', async () => {
    await createSink()
    const worker = command('--pretty', '--verbose')
    await writeEvents(sql, ['First'])
    await until(() => /a batch was delivered +sink=hook delivered=1/.test(worker.told()))
    worker.kill('SIGTERM')
    expect(await worker.exited).toBe(0)
    expect(worker.told()).toMatch(/^\d\d:\d\d:\d\d\.\d{3} +the worker begins +worker=/m)
  })

  test('says in one line that a port is taken', async () => {
    const port = Number(new URL(hook.url).port)
    const worker = command('--port', String(port))
    expect(await worker.exited).toBe(1)
    expect(worker.told()).toContain(`port_in_use: Port ${port} is in use.`)
  })
})

test.each([[true, true], [false, false]])('with prepare: %s, statements are named: %s, which a pooler in transaction mode would not know again', async (prepare, areNamed) => {
  await createSink()
  const proxy = await startProxy(new URL(world.databaseUrl))
  try {
    await start({ databaseUrl: proxy.url, prepare })
    await writeEvents(sql, names(2))
    await until(() => taken().length === 2)
    expect([proxy.statements.length > 0, proxy.statements.some((name) => name !== '')]).toEqual([true, areNamed])
  } finally {
    for (const one of running.splice(0)) await (one as RunningWorker).stop()
    await proxy.close()
  }
})

test('a login that is no more than the service role is enough', async () => {
  await sql.unsafe(`create role "courier_${process.pid}" login password '${localPassword}' in role service_role inherit`)
  try {
    await sql.unsafe(`alter role "courier_${process.pid}" bypassrls`)
    await createSink()
    const { lines } = await start({ databaseUrl: asLogin(world.databaseUrl, `courier_${process.pid}`), jobs: true })
    await writeEvents(sql, names(2))
    await until(() => taken().length === 2)
    await until(() => lines.filter(({ message }) => message === 'a job is done').length === 3)
    expect(lines.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([])
  } finally {
    for (const one of running.splice(0)) await (one as RunningWorker).stop()
    await sql.unsafe(`drop role "courier_${process.pid}"`)
  }
})

test('it shows how it is, and what it has done', async () => {
  await createSink()
  hook.answer = (response, { type }) => void response.writeHead(type === 'Bad' ? 400 : 200).end('{}')
  const { port } = await start({ port: 0, name: 'w"1', jobs: true })
  await writeEvents(sql, ['Good', 'Bad', 'Better'])
  await until(async () => (await sql`select pending::int as n from tracking.sink_lag`)[0]?.n === 0)
  const ask = async (path: string) => {
    const answer = await fetch(`http://127.0.0.1:${port}${path}`)
    return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() }
  }
  const health = await ask('/healthz')
  expect([health.status, JSON.parse(health.text)]).toEqual([200, { status: 'ok', worker: 'w"1', database_answered_seconds_ago: expect.any(Number) }])
  const { type, text } = await ask('/metrics')
  expect(type).toBe('text/plain; version=0.0.4; charset=utf-8')
  const values = Object.fromEntries(text.split('\n').filter((line) => line && !line.startsWith('#')).map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]))
  expect(values).toMatchObject({
    'actorscope_worker_info{worker="w\\"1"}': 1,
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
  expect(values['actorscope_batch_duration_seconds_count{sink="hook"}']).toBe(values['actorscope_batches_total{sink="hook",result="delivered"}'])
  for (const name of new Set(Object.keys(values).map((sample) => sample.replace(/(_bucket|_sum|_count)?(\{.*)?$/, '')))) {
    expect(text).toMatch(new RegExp(`^# HELP ${name} .+\\n# TYPE ${name} (counter|gauge|histogram)$`, 'm'))
    expect(name).toMatch(/^(actorscope|process)_[a-z_]+$/)
  }
  expect((await ask('/other')).status).toBe(404)
})

describe('jobs', () => {
  test('are each done by one of the workers', async () => {
    const workers = await Promise.all(['a', 'b', 'c'].map((name) => start({ name, jobs: true })))
    const done = () => workers.flatMap(({ lines }) => lines.filter(({ message }) => message === 'a job is done').map(({ job }) => job))
    await until(() => done().length >= 3)
    await new Promise((later) => setTimeout(later, 300))
    expect(done().toSorted()).toEqual(['make-partitions', 'reconcile-builds', 'retry-dead-letters'])
    expect(await sql`select name, held_until, last_error from tracking.jobs order by name`).toEqual(
      ['make-partitions', 'reconcile-builds', 'retry-dead-letters'].map((name) => ({ name, held_until: null, last_error: null })))
  })

  test('make partitions, end builds that took too long, and write what could not be written', async () => {
    const [build] = await sql`
      insert into build_requests (owner_org, app_id, requested_by, platform) values (${'a0000000-0000-4000-8000-000000000001'}, 'com.acme.app', ${people.ada}, 'ios') returning id`
    await sql`update build_requests set status = 'running', started_at = now() - interval '2 hours' where id = ${build!.id}`
    await sql`
      insert into tracking.dead_letters (event, error)
      select to_jsonb(e) || jsonb_build_object('event_id', i.id, 'occurred_at', tracking.event_time(i.id), 'event', 'Build Remembered'), 'x'
      from   events as e, tracking.new_event_id(now()) as i (id) where e.event = 'Build Started'`
    const [{ name } = { name: '' }] = await sql<{ name: string }[]>`select tracking.partition_of(date_trunc('month', now() at time zone 'UTC') + interval '3 months') as name`
    await sql.unsafe(`drop table ${name}`)
    await start({ jobs: true })
    await until(async () => (await sql`select to_regclass(${name}) is not null as made`)[0]?.made)
    await until(async () => (await sql`select status from build_requests where id = ${build!.id}`)[0]?.status === 'timed_out')
    await until(async () => (await sql`select count(*)::int as n from events where event = 'Build Remembered'`)[0]?.n === 1)
    expect(await sql`select * from tracking.dead_letters`).toEqual([])
  })

  test('that fail are told of, and done again later', async () => {
    await sql`alter function tracking.make_partitions rename to make_partitions_away`
    try {
      const { lines } = await start({ jobs: true })
      const failure = await until(() => lines.find(({ message }) => message === 'a job failed'))
      expect(failure).toMatchObject({ level: 'warn', job: 'make-partitions', error: 'function tracking.make_partitions() does not exist' })
      expect(await sql`select last_error, due_at > now() + interval '30 minutes' as later from tracking.jobs where name = 'make-partitions'`).toEqual([
        { last_error: 'function tracking.make_partitions() does not exist', later: true }])
    } finally {
      await sql`alter function tracking.make_partitions_away rename to make_partitions`
    }
  })
})

test('a database that goes away is waited for, and nothing is lost', async () => {
  const folder = await temporaryFolder()
  const port = await freePort()
  const url = `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`
  let server = await startPostgres({ port, dataDir: folder.path })
  const own = connect(url, { max: 1, fetch_types: false })
  try {
    await furnish(own, url)
    await own`select tracking.create_sink('hook', 'webhook', ${own.json({ url: `${hook.url}/hooks` })})`
    const { lines, port: stats } = await start({ databaseUrl: url, port: 0, pollMs: 50 })
    const health = async () => (await fetch(`http://127.0.0.1:${stats}/metrics`).then((answer) => answer.text())).includes('actorscope_database_up 1')
    for (let round = 0; round < 3; round++) {
      await writeEvents(own, names(5, 1 + 5 * round))
      await until(() => new Set(taken()).size === 5 * (round + 1))
      await server.kill()
      await until(() => lines.filter(({ message }) => message === 'the database is away').length === round + 1)
      if (round === 0) await until(async () => !await health())
      server = await startPostgres({ port, dataDir: folder.path })
      await until(() => lines.filter(({ message }) => message === 'the database is back').length === round + 1)
      await until(() => own`select`.then(() => true, () => false))
    }
    await until(health)
    await until(async () => (await own`select pending::int as n from tracking.sink_lag`)[0]?.n === 0)
    expect(await own`select * from tracking.delivery_gaps`).toEqual([])
    expect([...new Set(taken())]).toEqual(names(15))
    expect(lines.filter(({ level }) => level === 'error')).toEqual([])
  } finally {
    for (const one of running.splice(0)) await (one as RunningWorker).stop()
    await own.end({ timeout: 1 })
    await server.stop()
    await folder.remove()
  }
})

/** Passes on what clients say to Postgres, and keeps the names of the statements that they prepare. */
async function startProxy(database: URL): Promise<{ url: string, statements: string[], close(): Promise<void> }> {
  const statements: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connectTo(Number(database.port), database.hostname)
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}))
    let rest = Buffer.alloc(0)
    let isStarted = false
    client.on('data', (chunk) => {
      rest = Buffer.concat([rest, chunk as Buffer])
      // The first message has no type; then each is a letter, its length, and what it says.
      for (let head = isStarted ? 1 : 0; rest.length >= head + 4 && rest.length >= head + rest.readInt32BE(head); head = 1) {
        const end = head + rest.readInt32BE(head)
        if (isStarted && rest[0] === 'P'.charCodeAt(0)) statements.push(rest.toString('utf8', 5, rest.indexOf(0, 5)))
        rest = rest.subarray(end)
        isStarted = true
      }
    })
    client.pipe(upstream).pipe(client)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const url = new URL(database)
  url.port = String((server.address() as AddressInfo).port)
  const close = async () => { for (const socket of sockets) socket.destroy(); await new Promise((done) => server.close(done)) }
  return { url: url.href, statements, close }
}

type SinkOptions = { name?: string, shards?: number, events?: string[], fromBeginning?: boolean }

async function createSink({ name = 'hook', shards = 1, events, fromBeginning = false }: SinkOptions = {}): Promise<void> {
  await sql`
    select tracking.create_sink(${name}, 'webhook', ${sql.json({ url: `${hook.url}/hooks` })}, from_beginning => ${fromBeginning}, shards => ${shards}, events => ${events ?? null})`
}

async function start(options: Partial<Parameters<typeof startWorker>[0]> = {}): Promise<RunningWorker> {
  const worker = await startWorker({ databaseUrl: world.databaseUrl, environment, ...options })
  running.push(worker)
  return worker
}

function command(...flags: string[]): Process {
  const worker = startCommand(['worker', '--no-jobs', ...flags], { ...environment, DATABASE_URL: world.databaseUrl })
  running.push(worker)
  return worker
}
