import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { people } from './demo.ts'
import { startCommand, startHook, startWorker, until, writeEvents, type Hook, type RunningWorker } from './workers.ts'
import { createWorld, type World } from './world.ts'

// `actorscope replay`, `dead`, and how `worker` begins, as processes of their own.

let world: World
let sql: Sql
let hook: Hook
let worker: RunningWorker | undefined
const environment = { ACTORSCOPE_SINK_HOOK_SECRET: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' }

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  hook = await startHook()
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`truncate public.events`
  await sql`truncate tracking.dead_letters`
  hook.bodies.length = hook.taken.length = 0
  hook.answer = (response) => void response.end('{}')
  await sql`select tracking.create_sink('hook', 'webhook', ${sql.json({ url: hook.url })})`
})
afterEach(async () => {
  await worker?.stop()
  worker = undefined
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
})
afterAll(async () => {
  await hook?.close()
  await world?.close()
})

const names = (count: number) => Array.from({ length: count }, (_, n) => `Event ${n + 1}`)
const taken = () => hook.taken.map(({ type }) => type)

describe('actorscope worker', () => {
  test.each([
    ['another password', (url: URL) => { url.password = 'wrong' },
      /^connection_failed: .*password authentication failed.*\(Check DATABASE_URL, and that the database runs\.\)\n$/],
    ['a database without the chapters', (url: URL) => { url.pathname = '/template1' },
      /^42P01: .*\(Apply the chapters in migrations\/; actorscope doctor says which are missing\.\)\n$/],
  ])('does not begin with %s', async (_, change, told) => {
    const url = new URL(world.databaseUrl)
    change(url)
    const run = startCommand(['worker'], { DATABASE_URL: url.href })
    expect([await run.exited, run.told()]).toEqual([1, expect.stringMatching(told)])
  })

  test('waits for a database that is away', async () => {
    const run = startCommand(['worker'], { DATABASE_URL: 'postgres://postgres:postgres@127.0.0.1:1/postgres' })
    await until(() => run.told().includes('the database is away'))
    run.kill('SIGTERM')
    expect(await run.exited).toBe(0)
  })
})

describe('actorscope replay', () => {
  test('says in a dry run how many events it would send, and how long that takes, and changes nothing', async () => {
    await deliverAll(5)
    await sql`update tracking.cursors set events_a_second = 0.5`
    await worker?.stop()
    const before = await sql`select xmin::text, * from tracking.cursors`
    const run = await command('replay', '--sink', 'hook', '--since', 'beginning', '--dry-run')
    expect([run.code, run.told]).toEqual([0,
      'Would send hook 5 events, but for those that its filters leave out; at the rate of its last large batches that takes 10 s. Nothing was changed.\n'])
    expect((await command('replay', '--sink', 'hook', '--since', '1h', '--dry-run', '--json')).json).toEqual([
      { sink: 'hook', since: expect.any(String), events: 5, estimated_seconds: 10, dry_run: true }])
    expect(await sql`select xmin::text, * from tracking.cursors`).toEqual(before)
  })

  test('sends again what was received since a time, byte for byte, and waits for it', async () => {
    await deliverAll(3)
    const [{ at } = { at: '' }] = await sql<{ at: string }[]>`select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`
    await new Promise((done) => setTimeout(done, 5))
    await writeEvents(sql, ['New 1', 'New 2'])
    await until(() => taken().length === 5)
    const first = hook.bodies.slice(3).map((body) => JSON.stringify(body))
    const run = await command('replay', '--sink', 'hook', '--since', at)
    expect(run.code).toBe(0)
    expect(run.told).toMatch(/^Sends hook 2 events, .*how fast it takes them is not known yet\.\nDone in .*: the sink has 2 of them\.\n$/)
    expect(hook.bodies.slice(5).map((body) => JSON.stringify(body))).toEqual(first)
  })

  test('does not wait where it is told not to, or where nobody delivers', async () => {
    await deliverAll(2)
    await worker!.stop()
    const json = (await command('replay', '--sink', 'hook', '--since', 'beginning', '--no-wait', '--json')).json
    expect(json).toEqual([{ sink: 'hook', since: 'beginning', events: 2, estimated_seconds: null, dry_run: false }])
    expect(await sql`select pending::int from tracking.sink_lag`).toEqual([{ pending: 2 }])
    const run = await command('replay', '--sink', 'hook', '--since', 'beginning')
    expect([run.code, run.told.split('\n').at(-2)]).toEqual([0, 'The sink is rewound, and nobody is at it yet: start actorscope worker, where nothing else delivers.'])
    await sql`update tracking.sinks set enabled = false`
    expect((await command('replay', '--sink', 'hook', '--since', 'beginning')).told).toContain('disabled: nothing is sent until it is enabled')
  })

  test('can be left alone: the sending goes on', async () => {
    await deliverAll(3)
    hook.answer = (response) => void setTimeout(() => response.end('{}'), 700)
    const replay = startCommand(['replay', '--sink', 'hook', '--since', 'beginning'], { DATABASE_URL: world.databaseUrl })
    await until(() => hook.bodies.length > 3)
    replay.kill('SIGINT')
    expect(await replay.exited).toBe(130)
    await until(() => taken().length === 6)
    await until(async () => (await sql`select pending::int as n from tracking.sink_lag`)[0]?.n === 0)
  })

  test.each([
    [['--sink', 'nobody', '--since', '1h'], 1, '42704: There is no sink \'nobody\'.'],
    [['--since', '1h'], 2, 'required option \'--sink <name>\' not specified'],
    [['--sink', 'hook', '--since', 'yesterday'], 2, 'It is a number and ms, s, m, h, d or w'],
    [['--sink', 'hook', '--since', '2999-01-01'], 2, 'It is a time to come.'],
  ])('refuses %j', async (flags, code, told) => {
    const run = await command('replay', ...flags)
    expect([run.code, run.told]).toEqual([code, expect.stringContaining(told)])
  })
})

describe('actorscope dead', () => {
  test('lists what sinks refused, and what builds could not write', async () => {
    expect((await command('dead', 'list')).told).toBe('There are none.\n')
    await refuse('Bad 1', 'Bad 2')
    await sql`insert into tracking.dead_letters (event, error) values ('{"event": "Build Started"}', '23514 no')`
    const { output } = await command('dead', 'list')
    expect(output.split('\n')).toEqual([
      expect.stringMatching(/^failed at +sink +event +id +tries +why$/),
      expect.stringMatching(/^\S+Z +hook +Bad 1 +[0-9a-f-]{36} +1 +422 no thanks$/),
      expect.stringMatching(/^\S+Z +hook +Bad 2 +[0-9a-f-]{36} +1 +422 no thanks$/),
      expect.stringMatching(/^\S+Z +\(builds\) +Build Started +[0-9a-f-]{36} +1 +23514 no$/), ''])
    const { json } = await command('dead', 'list', '--json', '--sink', 'hook', '--limit', '1')
    expect(json).toMatchObject([{ sink: 'hook', event: { event: 'Bad 1', actor_id: people.ada }, error: '422 no thanks', tries: 1 }])
    expect((await command('dead', 'list', '--sink', 'other')).told).toBe('There are none.\n')
  })

  test('sends them again: what is taken counts as delivered, the rest stays with the new answer', async () => {
    await refuse('Good now', 'Still bad', 'Good now as well')
    hook.answer = (response, { type }) => void response.writeHead(type === 'Still bad' ? 400 : 200).end('still no')
    const run = await command('dead', 'retry', '--sink', 'hook')
    expect([run.code, run.told]).toEqual([1, 'hook: 2 delivered, 1 refused again.\n'])
    expect(taken()).toEqual(['Good now', 'Good now as well'])
    expect(await sql`select event ->> 'event' as name, error, tries from tracking.undelivered`).toEqual([{ name: 'Still bad', error: '400 still no', tries: 2 }])
    expect(await sql`select delivered::int, undelivered::int, pending::int from tracking.sink_lag`).toEqual([{ delivered: 2, undelivered: 1, pending: 0 }])
  })

  test('sends one of them again by its id, byte for byte what the sink was sent before', async () => {
    await refuse('One', 'Other')
    const before = JSON.stringify(hook.bodies[1])
    const [{ event_id } = { event_id: '' }] = await sql<{ event_id: string }[]>`select event_id from tracking.undelivered where event ->> 'event' = 'Other'`
    hook.bodies.length = 0
    hook.answer = (response) => void response.end('{}')
    expect(await command('dead', 'retry', '--id', event_id, '--json')).toMatchObject({ code: 0, json: [{ sink: 'hook', delivered: 1, refused: 0 }] })
    expect(hook.bodies.map((body) => JSON.stringify(body))).toEqual([before])
  })

  test('stops at a sink that is down, and keeps what was done', async () => {
    await refuse('First', 'Second', 'Third')
    hook.answer = (response, { type }) => { if (type === 'First') response.end('{}'); else response.socket!.destroy() }
    const run = await command('dead', 'retry')
    expect(run.code).toBe(1)
    expect(await sql`select event ->> 'event' as name, tries from tracking.undelivered order by txid`).toEqual([{ name: 'Second', tries: 1 }, { name: 'Third', tries: 1 }])
  })

  test('writes what builds could not write', async () => {
    await sql`
      insert into tracking.dead_letters (event, error)
      select jsonb_build_object('scope_id', ${people.ada}::uuid, 'actor_id', ${people.ada}::uuid, 'event_id', i.id, 'occurred_at', tracking.event_time(i.id), 'event', 'Build Remembered', 'channel', 'build-lifecycle', 'tags', '{}'::jsonb), 'x'
      from   tracking.new_event_id(now()) as i (id)`
    expect((await command('dead', 'retry')).told).toBe('Builds: 1 written.\n')
    expect(await sql`select event, source from events`).toEqual([{ event: 'Build Remembered', source: 'trigger' }])
  })

  test('gives them up, which the books show; a replay sends them again', async () => {
    await refuse('Hopeless', 'Other')
    const [{ event_id } = { event_id: '' }] = await sql<{ event_id: string }[]>`select event_id from tracking.undelivered where event ->> 'event' = 'Hopeless'`
    expect((await command('dead', 'drop', '--id', event_id)).told).toBe('1 dropped.\n')
    expect(await sql`select delivered::int, undelivered::int, dropped::int from tracking.sink_lag`).toEqual([{ delivered: 0, undelivered: 1, dropped: 1 }])
    expect(await command('dead', 'drop', '--sink', 'hook', '--json')).toMatchObject({ code: 0, json: [{ dropped: 1 }] })
    expect(await sql`select undelivered::int, dropped::int from tracking.sink_lag`).toEqual([{ undelivered: 0, dropped: 2 }])
    const run = await command('dead', 'drop')
    expect([run.code, run.told]).toEqual([2, expect.stringContaining('name a --sink, or an event by --id')])
    hook.answer = (response) => void response.end('{}')
    worker = await start()
    await sql`select tracking.rewind_sink('hook', '-infinity')`
    await until(() => taken().length === 2)
    await until(async () => (await sql`select pending::int as n from tracking.sink_lag`)[0]?.n === 0)
    expect(await sql`select delivered::int, undelivered::int, dropped::int from tracking.sink_lag`).toEqual([{ delivered: 2, undelivered: 0, dropped: 0 }])
  })
})

const start = () => startWorker({ databaseUrl: world.databaseUrl, environment })

async function deliverAll(count: number): Promise<void> {
  await writeEvents(sql, names(count))
  worker = await start()
  await until(async () => (await sql`select delivered::int as n from tracking.sink_lag`)[0]?.n === count)
}

/** Has the sink refuse events, for good. */
async function refuse(...events: string[]): Promise<void> {
  hook.answer = (response) => void response.writeHead(422).end('no thanks')
  await writeEvents(sql, events)
  worker = await start()
  await until(async () => (await sql`select undelivered::int as n from tracking.sink_lag`)[0]?.n === events.length)
  await worker.stop()
  worker = undefined
}

async function command(...args: string[]) {
  const run = startCommand(args, { ...environment, DATABASE_URL: world.databaseUrl })
  const code = await run.exited
  const json = args.includes('--json') ? run.output().split('\n').filter(Boolean).map((line) => JSON.parse(line)) : []
  return { code, output: run.output(), told: run.told(), json }
}
