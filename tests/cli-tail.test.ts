import { spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { DataApi } from '../src/data-api.ts'
import { toMatcher, type EventRow } from '../src/tail.ts'
import { cleanEnvironment, published, start, startGateway, type Run } from './cli.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { as, person, trackEvent } from './sessions.ts'
import { createWorld, type World } from './world.ts'

let world: World
let channel: string
const cleanups: (() => unknown)[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
beforeEach(() => {
  channel = `tail-${uuidV7().slice(-12)}`
})
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

describe('tail', () => {
  test('shows what is committed from now on, a row of the log a line with --json', async () => {
    await track('Before')
    const tail = await tailing(['--json'])
    const event_id = await track('After', { tags: { format: 'csv' } })
    await tail.prints('After')
    const row = JSON.parse(tail.stdout())
    expect(row).toMatchObject({
      event: 'After', channel, event_id, actor_id: people.bob, org_id: orgs.acme, source: 'client', tags: { org_id: orgs.acme, format: 'csv' } })
    expect(await end(tail)).toEqual({ code: 0, stderr: '' })
  })

  test('shows time, event, app or org, actor and tags', async () => {
    const tail = await tailing([])
    await track('Report Exported', { icon: '📄', timestamp: '2026-11-05T09:30:00.123Z', tags: { app_id: 'com.acme.app', format: 'csv', rows: 3 } })
    await tail.prints('Report')
    await track('Invoice Paid', { timestamp: '2026-11-05T09:30:00.123Z' })
    await tail.prints('Invoice')
    expect(tail.stdout()).toBe(
      `2026-11-05T09:30:00.123Z  📄 Report Exported  com.acme.app  ${people.bob}  rows=3 format=csv\n` +
      `2026-11-05T09:30:00.123Z  Invoice Paid  ${orgs.acme}  ${people.bob}\n`)
  })

  test('has colours in a terminal, or where FORCE_COLOR asks for them, and none where NO_COLOR does not want them', async () => {
    const forced = await tailing([], { FORCE_COLOR: '1' })
    const plain = await tailing([], { FORCE_COLOR: '1', NO_COLOR: '1' })
    await track('Coloured')
    await forced.prints('Coloured')
    await plain.prints('Coloured')
    expect(forced.stdout()).toContain('\u001b[1mColoured\u001b[22m')
    expect(plain.stdout()).not.toContain('\u001b')
  })

  test('leaves what others wrote no power over the terminal', async () => {
    const [text, json] = [await tailing([]), await tailing(['--json'])]
    await track('Evil\u001b[2J', { icon: '\u009b', tags: { 'a\u0007': 'x\ny\u202e' } })
    await text.prints('Evil')
    await json.prints('Evil')
    expect(text.stdout()).toContain('  \\u009b Evil\\u001b[2J  ')
    expect(text.stdout()).toContain('a\\u0007=x y\\u202e\n')
    expect(json.stdout()).toMatch(/^[^\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]*\n$/)
    expect(JSON.parse(json.stdout())).toMatchObject({ icon: '\u009b', tags: { 'a\u0007': 'x\ny\u202e' } })
  })

  test('shows the caller no event of others', async () => {
    const [eve, ada] = [await tailing(['--json'], asPerson('eve@evil.test')), await tailing(['--json'], asPerson('ada@acme.test'))]
    await track('Of Acme')
    await track('Of Evil', { org_id: orgs.evil }, people.eve)
    await eve.prints('Of Evil')
    await ada.prints('Of Acme')
    expect([namesOf(eve), namesOf(ada)]).toEqual([['Of Evil'], ['Of Acme']])
  })

  test.each([
    [['--event', 'Build *'], ['Build Started']],
    [['--event', 'Build?Started'], ['Build Started']],
    [['--org', orgs.demo.toUpperCase()], ['In Demo']],
    [['--app', 'com.acme.app'], ['Build Started', 'By ada']],
    [['--actor', people.ada], ['By ada', 'In Demo']],
    [['--actor', people.ada, '--app', 'com.acme.app'], ['By ada']],
  ])('with %j shows %j', async (flags, shown) => {
    const tail = await tailing(['--json', ...flags], asPerson('ada@acme.test'))
    await track('Plain')
    await track('Build Started', { tags: { app_id: 'com.acme.app' } })
    await track('By ada', { tags: { app_id: 'com.acme.app' } }, people.ada)
    await track('In Demo', { org_id: orgs.demo }, people.ada)
    await tail.prints(shown.at(-1) ?? '')
    await sleep(300)
    expect(namesOf(tail)).toEqual(shown)
  })

  test('shows an event that commits late, once, after later ones', async () => {
    // Given a transaction that has written an event and has not committed
    const tail = await tailing(['--json'])
    const late = world.connectAs('authenticator')
    let commit = () => {}
    const held = new Promise<void>((done) => { commit = done })
    let written = () => {}
    const wrote = new Promise<void>((done) => { written = done })
    const committed = as(late, person(people.bob), async (tx) => {
      await trackEvent(tx, payload('Late'))
      written()
      await held
    })
    await wrote
    // When another begins and commits before it does
    await track('Early')
    await tail.prints('Early')
    await track('Middle')
    await tail.prints('Middle')
    commit()
    await committed
    // Then it is shown when it commits, and none twice
    await tail.prints('Late')
    await track('Last')
    await tail.prints('Last')
    expect(namesOf(tail)).toEqual(['Early', 'Middle', 'Late', 'Last'])
  })

  test('shows more than fit into one answer', async () => {
    const tail = await tailing(['--json', '--event', 'Many'])
    const bob = await world.signIn('bob@acme.test')
    await bob.rpc('track_events', { v2: Array.from({ length: 1000 }, (_, n) => payload('Many', { tags: { n } })) })
    await bob.rpc('track_events', { v2: Array.from({ length: 300 }, (_, n) => payload('Many', { tags: { n: 1000 + n } })) })
    await expect.poll(() => rowsOf(tail).length, { timeout: 30_000 }).toBe(1300)
    expect(new Set(rowsOf(tail).map(({ tags }) => tags.n)).size).toBe(1300)
  })

  test('with --since begins with what was before, shows none twice, and goes on', async () => {
    const bob = await world.signIn('bob@acme.test')
    const from = Date.parse('2026-03-05T00:00:00Z')
    await bob.rpc('track_events', { v2: Array.from({ length: 900 }, (_, n) =>
      payload('Back', { tags: { n }, timestamp: new Date(from + Math.floor(n / 3)).toISOString() })) })
    await track('Too old', { timestamp: '2026-03-04T23:59:59Z' })
    let isOver = false
    const meanwhile = (async () => {
      for (let n = 900; !isOver; n++) await track('Back', { tags: { n } })
    })()
    const tail = run(['--json', '--since', '2026-03-05T00:00:00Z', '--event', 'Back'])
    await expect.poll(() => rowsOf(tail).length, { timeout: 60_000 }).toBeGreaterThan(1000)
    isOver = true
    await meanwhile
    const [{ count } = { count: 0 }] = await world.sql<{ count: number }[]>`select count(*)::int as count from events where channel = ${channel} and event = 'Back'`
    await expect.poll(() => rowsOf(tail).length, { timeout: 30_000 }).toBe(count)
    const numbers = rowsOf(tail).map(({ tags }) => Number(tags.n))
    expect(new Set(numbers).size).toBe(count)
    expect(numbers.slice(0, 900).map((n) => Math.floor(n / 3))).toEqual(Array.from({ length: 900 }, (_, n) => Math.floor(n / 3)))
  })

  test('goes on where it was when the API comes back', async () => {
    let isDown = false
    const gateway = await startGateway(world.api.url, () => (isDown ? 'is lost' : 'passes'))
    cleanups.push(gateway.stop)
    const tail = await tailing(['--json'], { ACTORSCOPE_URL: gateway.url })
    isDown = true
    await tail.prints('trying again: network_error')
    await track('Meanwhile')
    isDown = false
    await tail.prints('Meanwhile')
    expect(namesOf(tail)).toEqual(['Meanwhile'])
    expect(tail.stderr()).toMatch(/\nThe API answers again\.\n$/)
  })

  test('ends with 1 and a line where the API cannot be reached, or the caller is nobody it knows', async () => {
    const unreachable = run([], { ACTORSCOPE_URL: 'http://127.0.0.1:9' })
    expect([await unreachable.exited, unreachable.stderr()]).toEqual([1, expect.stringMatching(/^network_error: http:\/\/127\.0\.0\.1:9 cannot be reached: .*\n$/)])
    const unknown = run([], { ...asPerson('bob@acme.test'), ACTORSCOPE_PASSWORD: 'wrong' })
    expect([await unknown.exited, unknown.stderr()]).toEqual([1, expect.stringMatching(/^invalid_credentials: /)])
  })

  test('signs in again before its token ends', async () => {
    const gateway = await startGateway(world.api.url, () => 'passes')
    cleanups.push(gateway.stop)
    let now = Date.now()
    const login = { email: 'bob@acme.test', password: 'password' }
    const api = new DataApi({ url: gateway.url, key: 'sb_publishable_actorscope_local', login }, new AbortController().signal, () => now)
    const signIns = () => gateway.bodies.filter((body) => body.includes('bob@acme.test')).length
    await api.select('orgs', { select: 'id' })
    now += 58 * 60_000
    await api.select('orgs', { select: 'id' })
    expect(signIns()).toBe(1)
    now += 2 * 60_000
    await api.select('orgs', { select: 'id' })
    expect(signIns()).toBe(2)
  })
})

describe('a reader that has seen enough', () => {
  test('ends tail: head -1 gives the first event and the prompt comes back, though no event follows', async () => {
    // Given a tail that is read as far as its first line
    let asked = 0
    const gateway = await startGateway(world.api.url, (body) => {
      if (body.includes('max_events')) asked++
      return 'passes'
    })
    cleanups.push(gateway.stop)
    const shell = spawn('sh', ['-c', '"$@" | head -1', 'sh', ...published, 'tail', '--json', '--every', '50ms'], {
      env: { ...cleanEnvironment(), ...asPerson('bob@acme.test'), ACTORSCOPE_URL: gateway.url }, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    let shown = ''
    shell.stdout.on('data', (text) => { shown += text })
    const exited = new Promise((done) => shell.once('close', done))
    cleanups.push(() => { if (shell.exitCode === null) process.kill(-shell.pid!, 'SIGKILL') })
    await expect.poll(() => asked, { timeout: 60_000 }).toBeGreaterThan(1)
    // When there is one event, and no other
    await track('First')
    // Then the pipeline ends
    expect(await exited).toBe(0)
    expect(JSON.parse(shown)).toMatchObject({ event: 'First' })
  })

  test('ends tail at the next event where there is no way to notice before', async () => {
    const tail = await tailing(['--json'])
    tail.process.stdout?.destroy()
    await track('Unread')
    expect(await tail.exited).toBe(0)
    expect(tail.stderr()).toBe('')
  })
})

test('a filter without wishes lets every event pass, and a name is taken literally but for * and ?', () => {
  const row = { event: 'a.b(c)', org_id: null, app_id: null, actor_id: null } as EventRow
  expect(toMatcher({})(row)).toBe(true)
  expect(toMatcher({ event: 'a.b(c)' })(row)).toBe(true)
  expect(toMatcher({ event: 'a?b*' })(row)).toBe(true)
  expect(toMatcher({ event: 'a.b' })(row)).toBe(false)
  expect(toMatcher({ event: 'a.*' })({ ...row, event: 'a_b' })).toBe(false)
  expect(toMatcher({ org: orgs.acme })(row)).toBe(false)
})

const asPerson = (email: string): NodeJS.ProcessEnv => ({ ACTORSCOPE_URL: world.api.url, ACTORSCOPE_EMAIL: email, ACTORSCOPE_PASSWORD: 'password' })

function run(flags: string[], env: NodeJS.ProcessEnv = {}): Run {
  const tail = start(['tail', '--every', '50ms', ...flags], { env: { ...asPerson('bob@acme.test'), ...env } })
  cleanups.push(async () => { tail.process.kill('SIGKILL'); await tail.exited })
  return tail
}

/** Starts a tail, and waits until it has its cursor: until it has asked again. */
async function tailing(flags: string[], env: NodeJS.ProcessEnv = {}): Promise<Run> {
  let asked = 0
  const gateway = await startGateway(env.ACTORSCOPE_URL ?? world.api.url, (body) => {
    if (body.includes('max_events')) asked++
    return 'passes'
  })
  cleanups.push(gateway.stop)
  const tail = run(flags, { ...env, ACTORSCOPE_URL: gateway.url })
  await expect.poll(() => asked, { timeout: 60_000, interval: 20 }).toBeGreaterThan(1)
  return tail
}

async function end(tail: Run): Promise<{ code: number | null, stderr: string }> {
  tail.process.kill('SIGINT')
  return { code: await tail.exited, stderr: tail.stderr() }
}

const rowsOf = (tail: Run): EventRow[] => tail.stdout().split('\n').slice(0, -1).map((line) => JSON.parse(line))
const namesOf = (tail: Run): string[] => rowsOf(tail).filter((row) => row.channel === channel).map(({ event }) => event)

function payload(event: string, more: object = {}): object {
  return { event, channel, tracking_version: 2, org_id: orgs.acme, ...more }
}

/** Tracks an event as somebody; answers its id. */
async function track(event: string, more: object = {}, actor = people.bob): Promise<string> {
  const { event_id } = await as(world.connectAs('authenticator'), person(actor), (tx) => trackEvent(tx, payload(event, more)))
  return event_id
}
