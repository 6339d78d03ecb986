import { open } from 'node:fs/promises'
import type { Sql } from 'postgres'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { connect, localPassword } from '../src/database.ts'
import { freePort, startPostgres } from '../src/postgres.ts'
import { published } from './cli.ts'
import { startCommand, startHook, startWorker, until, writeEvents } from './workers.ts'
import type { Hook, Process, RunningWorker } from './workers.ts'
import { createWorld, furnish, temporaryFolder, type World } from './world.ts'

// `actorscope worker` as a process of its own: how it begins and ends, and what it tells.

let world: World
let sql: Sql
let hook: Hook
const running: (Process | RunningWorker)[] = []

const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'
const environment = { ACTORSCOPE_SINK_HOOK_SECRET: secret }

beforeAll(async () => {
  world = await createWorld()
  sql = world.sql
  hook = await startHook()
})
beforeEach(async () => {
  await sql`delete from tracking.sinks`
  await sql`truncate public.events`
  hook.clear()
  await createSink(sql)
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
const taken = () => hook.taken.map(({ type }) => type)

test('it finishes its batch when it is told to end, and ends well', async () => {
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
  expect(await sql`select delivered::int, pending::int, failures from tracking.sink_lag`).toEqual([
    { delivered: 1, pending: 1, failures: 0 }])
})

test('it ends within its grace where the sink does not answer, and hands the rest on', async () => {
  await writeEvents(sql, names(3))
  hook.answer = (response, { type }) => { if (type === 'Event 1') response.end('{}') }
  const worker = command('--grace', '2s')
  await until(() => hook.bodies.length === 2)
  worker.kill('SIGINT')
  expect(await worker.exited).toBe(0)
  expect(await sql`select delivered::int, leased_until <= clock_timestamp() as is_free from tracking.cursors`).toEqual([
    { delivered: 1, is_free: true }])
  hook.answer = (response) => void response.end('{}')
  await startAnother()
  await until(() => taken().length === 3)
  expect(taken()).toEqual(names(3))
})

test('when it is killed, another has what it had as soon as its lease has ended', async () => {
  hook.answer = () => {} // never answers
  const worker = command('--lease', '2s')
  await worker.untilTold('the worker begins')
  await writeEvents(sql, names(2))
  await until(() => hook.bodies.length === 1)
  worker.kill('SIGKILL')
  expect(await worker.exited).toBe('SIGKILL')
  hook.answer = (response) => void response.end('{}')
  await startAnother()
  await until(() => taken().length === 2)
  expect(taken()).toEqual(names(2))
})

test('it tells what it does as JSON, and no secret, whatever the sink says', async () => {
  hook.answer = (response) => void response.writeHead(500).end(`no: ${secret} and ${secret.slice(6)}`)
  const worker = command('--verbose')
  await writeEvents(sql, ['First'])
  const failure = await worker.untilTold('a batch failed')
  expect(failure).toMatchObject({ level: 'warn', sink: 'hook', delivered: 0, error: '500 no: *** and ***' })
  worker.kill('SIGTERM')
  expect(await worker.exited).toBe(0)
  expect(worker.output()).toBe('')
  expect(worker.told().trim().split('\n').map((line) => Object.keys(JSON.parse(line)).slice(0, 3))).toEqual(
    worker.lines().map(() => ['time', 'level', 'message']))
  expect(worker.told()).not.toContain(secret.slice(6))
})

test('it tells people what it does', async () => {
  const worker = command('--pretty', '--verbose')
  await writeEvents(sql, ['First'])
  await until(() => /a batch was delivered +sink=hook delivered=1/.test(worker.told()))
  worker.kill('SIGTERM')
  expect(await worker.exited).toBe(0)
  expect(worker.told()).toMatch(/^\d\d:\d\d:\d\d\.\d{3} the worker begins +worker=/m)
})

test('it says in one line that a port is taken', async () => {
  const port = Number(new URL(hook.url).port)
  const worker = command('--port', String(port))
  expect(await worker.exited).toBe(1)
  expect(worker.told()).toContain(`port_in_use: Port ${port} is in use.`)
})

test('where what it prints finds no room, that sink waits, and the others are delivered to', async () => {
  await sql`select tracking.create_sink('out', 'ndjson')`
  const full = await open('/dev/full', 'w')
  const worker = commandInto(full.fd)
  await writeEvents(sql, names(2))
  expect(await worker.untilTold('a batch failed')).toMatchObject({
    sink: 'out', delivered: 0, error: expect.stringContaining('ENOSPC') })
  await until(() => taken().length === 2)
  worker.kill('SIGTERM')
  expect(await worker.exited).toBe(0)
  await full.close()
  expect(await sql`select sink, pending::int from tracking.sink_lag order by sink`).toEqual([
    { sink: 'hook', pending: 0 }, { sink: 'out', pending: 2 }])
})

test('a database that goes away is waited for, and nothing is lost', async () => {
  const folder = await temporaryFolder()
  const port = await freePort()
  const databaseUrl = `postgres://postgres:${localPassword}@127.0.0.1:${port}/postgres`
  let server = await startPostgres({ port, dataDir: folder.path })
  const own = connect(databaseUrl, { max: 1, fetch_types: false })
  try {
    await furnish(own, databaseUrl)
    await createSink(own)
    const { lines, port: stats } = await startAnother({ databaseUrl, port: 0 })
    const told = (message: string) => lines.filter((line) => line.message === message).length
    const scrape = async () => (await fetch(`http://127.0.0.1:${stats}/metrics`)).text()
    const isUp = async () => /^actorscope_database_up 1$/m.test(await scrape())
    for (const round of [1, 2]) {
      await writeEvents(own, names(5, 5 * round - 4))
      await until(() => new Set(taken()).size === 5 * round)
      await server.kill()
      await until(() => told('the database is away') === round)
      if (round === 1) await until(async () => !await isUp())
      server = await startPostgres({ port, dataDir: folder.path })
      await until(() => told('the database is back') === round)
      await until(() => own`select`.then(() => true, () => false))
    }
    await until(isUp)
    await until(async () => (await own`select pending::int as n from tracking.sink_lag`)[0]?.n === 0)
    expect(await own`select * from tracking.delivery_gaps`).toEqual([])
    expect([...new Set(taken())]).toEqual(names(10))
    expect(lines.filter(({ level }) => level === 'error')).toEqual([])
  } finally {
    await stopAll()
    await own.end({ timeout: 1 })
    await server.stop()
    await folder.remove()
  }
})

async function createSink(sql: Sql): Promise<void> {
  await sql`select tracking.create_sink('hook', 'webhook', ${sql.json({ url: `${hook.url}/hooks` })})`
}

const command = (...flags: string[]) => commandInto(undefined, ...flags)

/** A worker that prints into a file. */
function commandInto(stdout: number | undefined, ...flags: string[]): Process {
  const settings = { ...environment, DATABASE_URL: world.databaseUrl }
  const worker = startCommand(['worker', '--no-jobs', ...flags], settings, { program: published, stdout })
  running.push(worker)
  return worker
}

async function startAnother(options: Partial<Parameters<typeof startWorker>[0]> = {}): Promise<RunningWorker> {
  const worker = await startWorker({ databaseUrl: world.databaseUrl, environment, ...options })
  running.push(worker)
  return worker
}

async function stopAll(): Promise<void> {
  for (const one of running.splice(0)) {
    if ('stop' in one) await one.stop()
    else { one.kill('SIGKILL'); await one.exited }
  }
}
