import { spawn, type ChildProcess } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { publishableKey } from '../src/api.ts'
import { freePort } from '../src/postgres.ts'
import { startProxy, until, type Proxy } from './tracker-proxy.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

let world: World
let proxy: Proxy
let place: Awaited<ReturnType<typeof temporaryFolder>>
let program: string
const children = new Set<ChildProcess>()

beforeAll(async () => {
  world = await createWorld()
  place = await temporaryFolder()
  program = join(place.path, 'program.mjs')
  await build({ entryPoints: [join(import.meta.dirname, 'tracker-child.ts')], bundle: true, platform: 'node', format: 'esm', outfile: program, logLevel: 'error' })
})
afterAll(async () => {
  await world.close()
  await place.remove()
})
beforeEach(async () => {
  proxy = await startProxy(world.api.url)
  await world.sql`truncate events`
})
afterEach(async () => {
  for (const child of children) child.kill('SIGKILL')
  await proxy.close()
})

type Child = { process: ChildProcess, lines: string[], ended: Promise<{ code: number | null, seconds: number }> }

type Settings = { url?: string, folder?: string, name?: string, count?: number, flushAt?: number }

function start(what: string, settings: Settings = {}, command = [process.execPath], environment: Record<string, string> = {}): Child {
  const began = Date.now()
  const argument = JSON.stringify({ url: proxy.url, key: publishableKey, what, ...settings })
  const child = spawn(command[0]!, [...command.slice(1), program, argument], {
    env: { PATH: process.env.PATH, NO_COLOR: '1', ...environment }, stdio: ['ignore', 'pipe', 'inherit'] })
  children.add(child)
  let text = ''
  const lines: string[] = []
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk
    const parts = text.split('\n')
    text = parts.pop()!
    lines.push(...parts)
  })
  const ended = new Promise<{ code: number | null, seconds: number }>((done) => child.once('close', (code) => {
    children.delete(child)
    done({ code, seconds: (Date.now() - began) / 1000 })
  }))
  return { process: child, lines, ended }
}

let queues = 0
const newQueue = () => join(place.path, `queue-${++queues}`)
const names = async () => (await world.sql`select event from events order by event_id`).map(({ event }) => event as string)
const numbered = (count: number, name = 'Event') => Array.from({ length: count }, (_, i) => `${name} ${i}`)

test('a process that just ends delivers everything first', async () => {
  proxy.next({ status: 503 }, 'reset', 'reset after')
  const child = start('end', { count: 250 })
  expect(await child.ended).toMatchObject({ code: 0 })
  expect(await names()).toEqual(numbered(250))
  expect(child.lines).toEqual([])
})

test('a process that calls process.exit after shutdown has delivered everything', async () => {
  const child = start('shutdown', { count: 250 })
  expect(await child.ended).toMatchObject({ code: 3 })
  expect(await names()).toEqual(numbered(250))
  expect(JSON.parse(child.lines[0]!)).toMatchObject({ tracked: 250, sent: 250, dropped: {} })
})

test('a tracker with nothing to do keeps no process alive', async () => {
  const { code, seconds } = await start('nothing', { folder: newQueue() }).ended
  expect(code).toBe(0)
  expect(seconds).toBeLessThan(20)
  expect(proxy.seen).toEqual([])
})

test('a process that waits for an answer lives to hear it', async () => {
  proxy.next({ status: 503 }, { status: 503 })
  const child = start('now')
  expect(await child.ended).toMatchObject({ code: 0 })
  expect(JSON.parse(child.lines[0]!)).toMatchObject({ duplicate: false })
})

test('a process that ends while the server is away is held up for a while, and says what it lost', async () => {
  proxy.always('reset')
  const child = start('end', { count: 3 })
  const { code, seconds } = await child.ended
  expect(code).toBe(0)
  expect(seconds).toBeLessThan(60)
  expect(child.lines).toEqual(numbered(3).map((name) => `error timeout ${name}`))
  expect(proxy.seen.length).toBeGreaterThan(3)
})

test('what a process with a file queue could not deliver, the next one does', async () => {
  const folder = newQueue()
  const away = `http://127.0.0.1:${await freePort()}`
  for (const [what, name] of [['exit', 'Exited'], ['end', 'Ended'], ['shutdown', 'Shut down']] as const) {
    const child = start(what, { folder, name, count: 30, ...what === 'exit' ? {} : { url: away } })
    if (what === 'shutdown') setTimeout(() => child.process.kill('SIGTERM'), 1_500)
    await child.ended
    expect(child.lines.filter((line) => line.startsWith('error'))).toEqual([])
  }
  expect(await names()).toEqual([])

  const child = start('deliver', { folder })
  expect(await child.ended).toMatchObject({ code: 0 })
  expect(JSON.parse(child.lines[0]!)).toMatchObject({ tracked: 0, adopted: 90, sent: 90, dropped: {} })
  expect(await names()).toEqual(['Exited', 'Ended', 'Shut down'].flatMap((name) => numbered(30, name)))
  expect(await readdir(folder)).toEqual([])
})

test('of processes killed at any moment, several at once on one file queue, everything tracked is there once', async () => {
  // Given a server that answers late, or not at all, or only after it has committed
  const folder = newQueue()
  const deeds = ['pass', 'pass', 'pass', 'reset', 'reset after'] as const
  proxy.always(async () => {
    await new Promise((done) => setTimeout(done, Math.random() * 30))
    return deeds[Math.floor(Math.random() * deeds.length)]!
  })

  // When three programs in turn run, and are killed again and again
  const said: string[] = []
  let kills = 0
  await Promise.all([0, 1, 2].map(async (seat) => {
    for (let round = 0; round < 7; round++) {
      const child = start('go on', { folder, name: `Program ${seat}.${round}`, flushAt: 10 })
      await until(() => child.lines.length > 5)
      await new Promise((done) => setTimeout(done, Math.random() * 250))
      child.process.kill('SIGKILL')
      kills++
      await child.ended
      said.push(...child.lines.filter((line) => !line.startsWith('error')))
      expect(child.lines.filter((line) => line.startsWith('error'))).toEqual([])
    }
  }))

  // Then the next one delivers what they left
  proxy.always('pass')
  const last = start('deliver', { folder })
  expect(await last.ended).toMatchObject({ code: 0 })
  expect(JSON.parse(last.lines.at(-1)!)).toMatchObject({ tracked: 0, queued: 0, waiting: 0, kept: 0, dropped: {} })
  expect(JSON.parse(last.lines.at(-1)!).adopted).toBeGreaterThan(0)
  const all = await names()
  const kept = new Set(all)
  expect(said.filter((name) => !kept.has(name))).toEqual([])
  expect(all.length).toBe(kept.size)
  // Each killed program may have tracked one event more than it came to say
  expect(all.length - said.length).toBeGreaterThanOrEqual(0)
  expect(all.length - said.length).toBeLessThanOrEqual(kills)
  expect(await readdir(folder)).toEqual([])
}, 180_000)

test('opting out is remembered in the file queue', async () => {
  const folder = newQueue()
  const { fileQueue } = await import('../src/file-queue.ts')
  const { createTracker } = await import('../src/tracker.ts')
  const make = () => createTracker({ url: proxy.url, publishableKey, apiKey: 'as_local_acme_admin' }, { queue: fileQueue(folder) })
  const first = make()
  first.track('Before')
  first.optOut()
  expect(await first.shutdown()).toMatchObject({ dropped: { opted_out: 1 } })

  const second = make()
  second.track('Out')
  expect(await second.shutdown()).toMatchObject({ dropped: { opted_out: 1 } })
  expect(await readdir(folder)).toEqual(['opted-out'])

  const third = make()
  third.optIn()
  third.track('In')
  await third.shutdown()
  expect(await names()).toEqual(['In'])
  expect(await readdir(folder)).toEqual([])
})

test('Deno is no different: what ends has delivered, and without permissions nothing is asked for', async () => {
  const deno = join(import.meta.dirname, '..', 'node_modules', '.bin', 'deno')
  const home = { DENO_DIR: join(place.path, 'deno'), DENO_NO_UPDATE_CHECK: '1', HOME: place.path }
  const run = [deno, 'run', '--no-config', '--no-lock', '--allow-net=127.0.0.1']
  const child = start('end', { count: 50 }, run, home)
  expect(await child.ended).toMatchObject({ code: 0 })
  expect(await names()).toEqual(numbered(50))
  expect(child.lines).toEqual([])

  const out = start('end', { count: 50, name: 'Out' }, [...run, '--allow-env'], { ...home, DO_NOT_TRACK: '1' })
  expect(await out.ended).toMatchObject({ code: 0 })
  expect(await names()).toHaveLength(50)

  const folder = newQueue()
  const filing = [...run, '--allow-read', '--allow-write', '--allow-sys=hostname', '--allow-run']
  const kept = start('exit', { count: 50, name: 'Kept', folder }, filing, home)
  expect(await kept.ended).toMatchObject({ code: 3 })
  expect(kept.lines).toEqual([])
  const next = start('deliver', { folder }, filing, home)
  expect(await next.ended).toMatchObject({ code: 0 })
  expect(JSON.parse(next.lines[0]!)).toMatchObject({ adopted: 50, sent: 50 })
})
