import { Writable } from 'node:stream'
import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { replayCommand } from '../src/cli-replay.ts'
import { Terminal } from '../src/terminal.ts'
import { published, run, start as startProgram } from './cli.ts'
import { people } from './demo.ts'
import { startCommand, startHook, startWorker, until, writeEvents } from './workers.ts'
import type { Hook, RunningWorker } from './workers.ts'
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
  hook.clear()
  await sql`select tracking.create_sink('hook', 'webhook', ${sql.json({ url: hook.url })})`
})
afterEach(async () => {
  await stopWorker()
  expect(await sql`select * from tracking.delivery_gaps`).toEqual([])
})
afterAll(async () => {
  await hook?.close()
  await world?.close()
})

const names = (count: number) => Array.from({ length: count }, (_, n) => `Event ${n + 1}`)
const taken = () => hook.taken.map(({ type }) => type)
const texts = (bodies: unknown[]) => bodies.map((body) => JSON.stringify(body))

describe('actorscope worker', () => {
  test.each([
    ['another password', (url: URL) => { url.password = 'wrong' },
      /^connection_failed: .*password authentication failed.*\(Check DATABASE_URL, and that the database runs\.\)\n$/],
    ['a database without the chapters', (url: URL) => { url.pathname = '/template1' },
      /^42P01: .*\(Apply the chapters in migrations\/; actorscope doctor says which are missing\.\)\n$/],
  ])('does not begin with %s', async (_, change, told) => {
    const url = new URL(world.databaseUrl)
    change(url)
    const run = startCommand(['worker'], { DATABASE_URL: url.href }, { program: published })
    expect([await run.exited, run.told()]).toEqual([1, expect.stringMatching(told)])
  })

  test('says of a sink that there is not that it waits for it', async () => {
    const run = startCommand(['worker', '--sink', 'hook', '--sink', 'nope'], { DATABASE_URL: world.databaseUrl }, { program: published })
    await until(() => run.told().includes('the worker begins'))
    run.kill('SIGTERM')
    expect(await run.exited).toBe(0)
    const warnings = run.told().split('\n').filter((line) => line.includes('no such sink'))
    expect(warnings.map((line) => JSON.parse(line))).toEqual([{ time: expect.any(String), level: 'warn', message: 'there is no such sink yet', sink: 'nope' }])
  })

  test('waits for a database that is away', async () => {
    const DATABASE_URL = 'postgres://postgres:postgres@127.0.0.1:1/postgres'
    const run = startCommand(['worker'], { DATABASE_URL }, { program: published })
    await until(() => run.told().includes('the database is away'))
    run.kill('SIGTERM')
    expect(await run.exited).toBe(0)
  })
})

describe('actorscope replay', () => {
  test('says in a dry run how many events it would send and how long that takes, and changes nothing', async () => {
    await deliverAll(5)
    await stopWorker()
    await sql`update tracking.cursors set events_a_second = 0.5`
    await worker?.stop()
    const before = await sql`select xmin::text, * from tracking.cursors`
    const run = await command('replay', '--sink', 'hook', '--since', 'beginning', '--dry-run')
    expect([run.code, run.told]).toEqual([0, 'Would send hook 5 events, but for those that its filters leave out; '
      + 'at the rate of its last large batches that takes 10 s. Nothing was changed.\n'])
    expect((await command('replay', '--sink', 'hook', '--since', '1h', '--dry-run', '--json')).json).toEqual([
      { sink: 'hook', since: expect.any(String), events: 5, gone: 0, estimated_seconds: 10, dry_run: true }])
    expect(await sql`select xmin::text, * from tracking.cursors`).toEqual(before)
    expect(hook.bodies).toHaveLength(5)
  })

  test('says how many events are no more in the log', async () => {
    await deliverAll(1)
    await stopWorker()
    await sql`
      insert into tracking.dropped_partitions (partition, since, until, events, last_received_at)
      values ('tracking.events_old', '2025-01-01', '2025-02-01', 7, '2025-01-31')`
    const told = async (since: string) => (await command('replay', '--sink', 'hook', '--since', since, '--dry-run')).told
    expect(await told('2025-01-15')).toContain(
      'Up to 7 others are not in the log any more: their partitions were dropped. Nothing was changed.\n')
    expect(await told('2025-02-15')).not.toContain('not in the log any more')
    await sql`delete from tracking.dropped_partitions`
  })

  test('sends again what was received since a time, byte for byte, and waits for it', async () => {
    await deliverAll(3)
    const [{ at } = { at: '' }] = await sql<{ at: string }[]>`
      select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`
    await new Promise((done) => setTimeout(done, 5))
    await writeEvents(sql, ['New 1', 'New 2'])
    await until(() => taken().length === 5)
    const run = await command('replay', '--sink', 'hook', '--since', at)
    expect(run.code).toBe(0)
    const [first, ...rest] = run.told.split('\n')
    expect(first).toMatch(/^Sends hook 2 events, .*how fast it takes them is not known yet\.$/)
    expect(rest).toEqual([expect.stringMatching(/^Done in .*: the sink has 2 of them\.$/), ''])
    expect(texts(hook.bodies.slice(5))).toEqual(texts(hook.bodies.slice(3, 5)))
  })

  test('shows a terminal how far it is, what is left, and what is in the way', async () => {
    await deliverAll(40)
    hook.answer = (response, _, n) => void setTimeout(() => response.end('{}'), n === 61 ? 3000 : 5)
    const shown = await replayInTerminal()
    expect(shown).toContain(`${'█'.repeat(15)}${'░'.repeat(15)}  50%  20 of 40 events, `)
    expect(shown).toMatch(/20 of 40 events, \d+ s left/)
    expect(shown).toMatch(/Done in \d+ s: the sink has 40 of them\.\n$/)

    // And where the sink is out of order, that
    hook.answer = (response, _, n) => void response.writeHead(n < 100 ? 503 : 200, { 'retry-after': '3' }).end('busy')
    hook.bodies.length = 0
    const replay = replayInTerminal()
    await until(async () => (await sql`select failures from tracking.cursors`)[0]?.failures === 1)
    await new Promise((done) => setTimeout(done, 700))
    hook.answer = (response) => void response.end('{}')
    await sql`update tracking.cursors set retry_at = null`
    expect(await replay).toMatch(/  0%  0 of 40 events, tries again at \d\d:\d\d:\d\d: 503 busy/)
  })

  test('says without a terminal, too, what is in the way, and when nobody is at it any more', async () => {
    await deliverAll(3)
    hook.answer = (response) => void response.writeHead(503, { 'retry-after': '1' }).end('busy')
    const replay = command('replay', '--sink', 'hook', '--since', 'beginning')
    await until(async () => (await sql`select failures from tracking.cursors`)[0]?.failures >= 2)
    await worker?.stop()
    const { code, told } = await replay
    expect([code, told.split('\n').slice(1)]).toEqual([expect.any(Number), [
      'hook is tried again: 503 busy', 'The sink is rewound, and nobody is at it yet: start actorscope worker, where nothing else delivers.', '']])
  })

  test('does not wait where it is told not to, or nobody delivers, or the sink is disabled', async () => {
    await deliverAll(2)
    await stopWorker()
    const [json] = (await command('replay', '--sink', 'hook', '--since', 'beginning', '--no-wait', '--json')).json
    expect(json).toEqual({
      sink: 'hook', since: 'beginning', events: 2, gone: 0, estimated_seconds: null, dry_run: false })
    expect(await readLag()).toMatchObject({ pending: 2 })
    const alone = await command('replay', '--sink', 'hook', '--since', 'beginning')
    expect([alone.code, alone.told]).toEqual([0, expect.stringContaining('is rewound, and nobody is at it yet')])
    await sql`update tracking.sinks set enabled = false`
    const disabled = await command('replay', '--sink', 'hook', '--since', 'beginning')
    expect(disabled.told).toContain('disabled: nothing is sent until it is enabled')
  })

  test('can be left alone: the sending goes on', async () => {
    await deliverAll(3)
    hook.answer = (response) => void setTimeout(() => response.end('{}'), 400)
    const replay = startProgram(['replay', '--sink', 'hook', '--since', 'beginning'], { env: settings() })
    await until(() => hook.bodies.length > 3)
    replay.process.kill('SIGINT')
    expect(await replay.exited).toBe(130)
    await until(() => taken().length === 6)
    await until(async () => (await readLag()).pending === 0)
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
    expect(json).toMatchObject([
      { sink: 'hook', event: { event: 'Bad 1', actor_id: people.ada }, error: '422 no thanks', tries: 1 }])
    await sql`select tracking.create_sink('other', 'ndjson')`
    expect((await command('dead', 'list', '--sink', 'other')).told).toBe('There are none.\n')
    expect((await command('dead', 'list', '--limit', 'x')).code).toBe(2)
  })

  test('sends them again: what is taken counts as delivered, the rest stays with the new answer', async () => {
    await refuse('Good now', 'Still bad', 'Good now as well')
    hook.answer = (response, { type }) => void response.writeHead(type === 'Still bad' ? 400 : 200).end('still no')
    const run = await command('dead', 'retry', '--sink', 'hook')
    expect([run.code, run.told]).toEqual([1, 'hook: 2 delivered, 1 refused again.\n'])
    expect(taken()).toEqual(['Good now', 'Good now as well'])
    expect(await readLetters()).toEqual([['Still bad', '400 still no', 2]])
    expect(await readLag()).toEqual({ delivered: 2, undelivered: 1, dropped: 0, pending: 0 })
  })

  test('sends one of them again by its id, byte for byte what the sink was sent before', async () => {
    await refuse('One', 'Other')
    const before = hook.bodies.splice(0)
    hook.answer = (response) => void response.end('{}')
    expect(await command('dead', 'retry', '--id', await idOf('Other'), '--json')).toMatchObject({
      code: 0, json: [{ sink: 'hook', delivered: 1, refused: 0 }] })
    expect(texts(hook.bodies)).toEqual(texts(before.slice(1)))
  })

  test('stops at a sink that is down, and keeps what was done', async () => {
    await refuse('First', 'Second', 'Third')
    hook.answer = (response, { type }) => { if (type === 'First') response.end('{}'); else response.socket!.destroy() }
    expect(await command('dead', 'retry')).toMatchObject({ code: 1, told: expect.stringMatching(
      /^sink_out_of_order: hook takes no more: .+ \(What it took counts as delivered\. See to it, and run the command again\.\)\n$/) })
    expect(await readLetters()).toEqual([['Second', '422 no thanks', 1], ['Third', '422 no thanks', 1]])
  })

  test.each([['list'], ['retry'], ['drop']])('refuses to %s those of a sink that there is not', async (what) => {
    expect(await command('dead', what, '--sink', 'nope')).toMatchObject({ code: 1, told: '42704: There is no sink \'nope\'. (tracking.create_sink makes one.)\n' })
  })

  test('writes what builds could not write', async () => {
    const row = { scope_id: people.ada, actor_id: people.ada, event: 'Build Remembered', channel: 'build-lifecycle' }
    await sql`
      insert into tracking.dead_letters (event, error)
      select ${sql.json({ ...row, tags: {} })}::jsonb
             || jsonb_build_object('event_id', i.id, 'occurred_at', tracking.event_time(i.id)), 'x'
      from   tracking.new_event_id(now()) as i (id)`
    expect((await command('dead', 'retry')).told).toBe('Builds: 1 written.\n')
    expect(await sql`select event, source from events`).toEqual([{ event: 'Build Remembered', source: 'trigger' }])
  })

  test('gives them up, which the books show; a replay sends them again', async () => {
    await refuse('Hopeless', 'Other')
    expect((await command('dead', 'drop', '--id', await idOf('Hopeless'))).told).toBe('1 dropped.\n')
    expect(await readLag()).toEqual({ delivered: 0, undelivered: 1, dropped: 1, pending: 0 })
    expect(await command('dead', 'drop', '--sink', 'hook', '--json')).toMatchObject({ code: 0, json: [{ dropped: 1 }] })
    expect(await readLag()).toEqual({ delivered: 0, undelivered: 0, dropped: 2, pending: 0 })
    const run = await command('dead', 'drop')
    expect([run.code, run.told]).toEqual([2, expect.stringContaining('name a --sink, or an event by --id')])
    hook.answer = (response) => void response.end('{}')
    worker = await start()
    await sql`select tracking.rewind_sink('hook', '-infinity')`
    await until(async () => (await readLag()).delivered === 2)
    expect(await readLag()).toEqual({ delivered: 2, undelivered: 0, dropped: 0, pending: 0 })
    expect(taken()).toEqual(['Hopeless', 'Other'])
  })
})

const settings = () => ({ ...environment, DATABASE_URL: world.databaseUrl })
const start = () => startWorker({ databaseUrl: world.databaseUrl, environment, batchSize: 10 })

async function stopWorker(): Promise<void> {
  await worker?.stop()
  worker = undefined
}

async function deliverAll(count: number): Promise<void> {
  await writeEvents(sql, names(count))
  worker = await start()
  await until(async () => (await readLag()).delivered === count)
}

/** Has the sink refuse events, for good. */
async function refuse(...events: string[]): Promise<void> {
  hook.answer = (response) => void response.writeHead(422).end('no thanks')
  await writeEvents(sql, events)
  worker = await start()
  await until(async () => (await readLag()).undelivered === events.length)
  await stopWorker()
}

async function readLag() {
  const [lag] = await sql`
    select delivered::int, undelivered::int, dropped::int, pending::int from tracking.sink_lag where sink = 'hook'`
  return lag!
}

async function readLetters() {
  const letters = await sql`select event ->> 'event' as event, error, tries from tracking.undelivered order by txid`
  return letters.map(({ event, error, tries }) => [event, error, tries])
}

async function idOf(event: string): Promise<string> {
  const [row] = await sql`select event_id from tracking.undelivered where event ->> 'event' = ${event}`
  return row!.event_id
}

async function command(...args: string[]) {
  const { code, stdout: output, stderr: told } = await run(args, { env: { ...settings(), NO_COLOR: '1' } })
  const json = args.includes('--json') ? output.split('\n').filter(Boolean).map((line) => JSON.parse(line)) : []
  return { code, output, told, json }
}

/** Replays all that there is in a terminal that is 100 characters wide; answers with what that was shown. */
async function replayInTerminal(): Promise<string> {
  let shown = ''
  const stream = Object.assign(new Writable({ write(chunk, _, done) { shown += chunk; done() } }), { columns: 100 })
  const terminal = new Terminal(stream as never, Object.assign(stream, { isTTY: true }) as never, { NO_COLOR: '1' })
  const cli = { environment: settings(), terminal, interrupted: new AbortController().signal }
  await replayCommand(cli).parseAsync(['--sink', 'hook', '--since', 'beginning'], { from: 'user' })
  return shown
}
