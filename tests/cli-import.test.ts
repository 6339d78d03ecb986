import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { linesOf } from '../src/json-lines.ts'
import { Repeats } from '../src/repeats.ts'
import { run, start, startGateway, type Fate, type Gateway, type RunOptions } from './cli.ts'
import { orgs, people, uuidV7 } from './demo.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

let world: World
let folder: { path: string, remove(): Promise<void> }
let channel: string
const cleanups: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  world = await createWorld()
})
afterAll(() => world.close())
beforeEach(async () => {
  folder = await temporaryFolder()
  channel = `import-${uuidV7().slice(-12)}`
})
afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
  await folder.remove()
})

describe('an import', () => {
  test('records each line as its fields say, and says how many', async () => {
    const id = uuidV7()
    const file = await write([
      { event: 'With an id', event_id: id, tracking_version: 2, org_id: orgs.acme, tags: { format: 'csv' }, nonPersonTags: { os: 'linux' } },
      { event: 'With a time', timestamp: '2026-10-05T09:30:00.123Z', tracking_version: 2, tags: { app_id: 'com.acme.app' } },
      { event: 'With a foreign id', event_id: 'inv-17', timestamp: '2026-10-05T09:30:00Z', tracking_version: 2, icon: '📄' },
    ])
    const before = Date.now()
    const ended = await importing(['--file', file], { env: asBob() })
    expect(ended).toEqual({ code: 0, stdout: '3 recorded, 0 there already, 0 dropped\n', stderr: '' })
    const rows = await world.sql`
      select event, event_id, occurred_at, org_id, app_id, actor_id, tags, context, icon from events where channel = ${channel} order by event`
    expect(rows).toMatchObject([
      { event: 'With a foreign id', occurred_at: new Date('2026-10-05T09:30:00Z'), org_id: null, actor_id: people.bob, icon: '📄' },
      { event: 'With a time', occurred_at: new Date('2026-10-05T09:30:00.123Z'), org_id: orgs.acme, app_id: 'com.acme.app' },
      { event: 'With an id', event_id: id, org_id: orgs.acme, tags: { format: 'csv' }, context: { os: 'linux' } },
    ])
    expect(rows[2]?.occurred_at.getTime()).toBeLessThanOrEqual(before)
  })

  test('of the same file again records nothing, and says so', async () => {
    const file = await write(lines(1200))
    expect(await importing(['--file', file])).toMatchObject({ code: 0, stdout: '1,200 recorded, 0 there already, 0 dropped\n' })
    expect(await importing(['--file', file])).toMatchObject({ code: 0, stderr: 'There is nothing new in it.\n' })
    expect(await recorded()).toBe(1200)
  })

  test('of the same file without what it kept records no line with a time or an id again', async () => {
    const file = await write(lines(700, { timestamp: '2026-10-05T09:30:00Z' }))
    await importing(['--file', file])
    expect(await importing(['--file', file, '--resume', inFolder('other.progress')])).toMatchObject({
      code: 0, stdout: '0 recorded, 700 there already, 0 dropped\n' })
    expect(await recorded()).toBe(700)
  })

  test('of stdin is as good as of a file', async () => {
    const input = asText(lines(1200))
    const resume = ['--resume', inFolder('stdin.progress')]
    expect(await importing(['-', ...resume], { input })).toMatchObject({ code: 0, stdout: '1,200 recorded, 0 there already, 0 dropped\n' })
    expect(await importing(['--file', '-', ...resume], { input })).toMatchObject({ code: 0, stderr: 'There is nothing new in it.\n' })
    expect(await recorded()).toBe(1200)
  })

  test('goes on with what was added to the file', async () => {
    const all = lines(900)
    const file = await write(all.slice(0, 600))
    await importing(['--file', file])
    await write(all)
    expect(await importing(['--file', file])).toMatchObject({ code: 0, stdout: '900 recorded, 0 there already, 0 dropped\n' })
    expect(await recorded()).toBe(900)
  })

  test('takes equal lines for as many events, however far apart and however often it runs', async () => {
    const twin = { event: 'Twin', tags: { n: 1 } }
    const file = await write([twin, twin, ...lines(800), twin])
    await importing(['--file', file])
    await importing(['--file', file])
    expect(await recorded()).toBe(803)
    expect((await world.sql`select from events where channel = ${channel} and event = 'Twin'`).length).toBe(3)
  })

  test('gives the same events in another order the same ids', async () => {
    const events = lines(600, { timestamp: '2026-10-05T09:30:00Z' })
    await importing(['--file', await write([...events, ...events])])
    await importing(['--file', await write([...events, ...events].reverse(), 'reversed.jsonl')])
    expect(await recorded()).toBe(1200)
  })

  test('refuses to go on with another input than the one it began with', async () => {
    const file = await write(lines(600))
    await importing(['--file', file])
    await write([{ event: 'Other' }, ...lines(700)])
    const refused = await importing(['--file', file])
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('resume_mismatch: The input does not begin with the 600 lines that were done before. (')
    await write(lines(10))
    expect((await importing(['--file', file])).stderr).toContain('resume_mismatch')
    expect(await recorded()).toBe(600)
  })

  test('keeps numbers to their last digit', async () => {
    const file = await writeText(`{"event":"Big","channel":"${channel}","tags":{"n":12345678901234567890.5,"small":1e-30}}`)
    await importing(['--file', file])
    const [row] = await world.sql`select tags ->> 'n' as n, tags ->> 'small' as small from events where channel = ${channel}`
    expect(row).toEqual({ n: '12345678901234567890.5', small: '0.000000000000000000000000000001' })
  })

  test('reads files of any make: a byte order mark, carriage returns, blank lines, no newline at the end, line separators in strings', async () => {
    const file = await writeText(`\ufeff{"event":"A","channel":"${channel}"}\r\n\r\n  \n\t{"event":"B\u2028B","channel":"${channel}"}  \n{"event":"C","channel":"${channel}"}`)
    expect(await importing(['--file', file])).toMatchObject({ code: 0, stdout: '3 recorded, 0 there already, 0 dropped\n' })
    expect((await world.sql`select event from events where channel = ${channel} order by event`).map(({ event }) => event)).toEqual(['A', 'B\u2028B', 'C'])
  })

  test('prints a summary as JSON where asked', async () => {
    const ended = await importing(['--file', await write(lines(3)), '--json'])
    expect(JSON.parse(ended.stdout)).toEqual({ recorded: 3, duplicates: 0, dropped: 0 })
  })

  test('warns once of what was recorded otherwise than it was sent', async () => {
    const ended = await importing(['--file', await write(lines(40, { colour: 'red' }))])
    expect(ended).toMatchObject({ code: 0, stderr: 'line 1: warning: The field "colour" was ignored: it is unknown.\n' })
  })

  test('honours DO_NOT_TRACK and ACTORSCOPE_DISABLED', async () => {
    const file = await write(lines(3))
    for (const variable of ['DO_NOT_TRACK', 'ACTORSCOPE_DISABLED']) {
      const refused = await importing(['--file', file], { env: { ...asDemo(), [variable]: '1' } })
      expect(refused).toMatchObject({ code: 1, stderr: 'opted_out: Tracking is switched off. (DO_NOT_TRACK or ACTORSCOPE_DISABLED is set; unset it to track.)\n' })
    }
    expect(await recorded()).toBe(0)
  })
})

describe('lines that cannot be recorded', () => {
  const bad = [
    ['not JSON', 'nonsense', 'invalid_payload'],
    ['half of an event', '{"event":"A', 'invalid_payload'],
    ['no object', '[1]', 'invalid_payload'],
    ['a null', 'null', 'invalid_payload'],
    ['an empty object', '{}', 'missing_event'],
    ['an empty id', '{"event":"A","event_id":""}', 'invalid_payload'],
    ['U+0000', '{"event":"A\\u0000"}', '22P05'],
    ['half a surrogate pair', '{"event":"A\\ud800"}', '22P02'],
    ['a number without bounds', '{"event":"A","tags":{"n":1e400000}}', '22003'],
    ['a time that is none', '{"event":"A","timestamp":"yesterday"}', 'timestamp_invalid'],
    ['nesting without bounds', `{"event":"A","tags":${'['.repeat(20_000)}${']'.repeat(20_000)}}`, '54001'],
    ['more than 32 KB', `{"event":"A","tags":{"pad":"${'x'.repeat(40_000)}"}}`, 'payload_too_large'],
    ['more than 1 MB', `{"event":"A","tags":{"pad":"${'x'.repeat(1_100_000)}"}}`, 'payload_too_large'],
    ['an org of others', `{"event":"A","tracking_version":2,"org_id":"${orgs.evil}"}`, 'no_permission'],
  ] as const

  test('are told with line and code and hint, and do not keep the others from being recorded', async () => {
    const good = lines(300).map((line) => JSON.stringify(line))
    const mixed = bad.flatMap(([, text], index) => [...good.slice(index * 20, index * 20 + 20), text])
    const file = await writeText([...mixed, ...good.slice(bad.length * 20)].join('\n'))
    const ended = await importing(['--file', file, '--rejects', inFolder('rejects.jsonl')])
    expect(ended).toMatchObject({ code: 1, stdout: `300 recorded, 0 there already, ${bad.length} dropped\n` })
    expect(ended.stderr.trim().split('\n').map((line) => line.split(': ').slice(0, 2))).toEqual(
      bad.map(([, , code], index) => [`line ${(index + 1) * 21}`, code]))
    expect(ended.stderr).toContain('line 105: missing_event: The event has no name. (Send the name of what happened as "event".)\n')
    expect(await readRejects()).toMatchObject(bad.map(([, text, code], index) => ({
      line: (index + 1) * 21, code, text: text.length > 1_000_000 ? `${text.slice(0, 1000)}…` : text })))
    expect(await recorded()).toBe(300)
  })

  test('are none of UTF-8 that is broken', async () => {
    const file = await writeText(Buffer.concat([Buffer.from(`{"event":"A","channel":"${channel}"}\n{"event":"`), Buffer.from([0xff]), Buffer.from('"}')]))
    expect(await importing(['--file', file])).toMatchObject({
      code: 1, stderr: 'line 2: invalid_payload: The line is not UTF-8. (Every line is one event, a JSON object, in UTF-8.)\n' })
  })

  test('cannot write to the terminal what they like', async () => {
    const file = await writeText('\u001b[31mred\u009b2J')
    expect((await importing(['--file', file])).stderr).toContain('"\\u001b[31mred\\u009b2J" is not valid JSON')
  })

  test('are tried again when the file is imported again, and the rest is not doubled', async () => {
    const file = await write([...lines(30), { event: 'Later', tracking_version: 2, org_id: orgs.evil }])
    const rejects = ['--rejects', inFolder('rejects.jsonl')]
    expect(await importing(['--file', file, ...rejects], { env: asBob() })).toMatchObject({ code: 1, stdout: '30 recorded, 0 there already, 1 dropped\n' })
    const [binding] = await world.sql`insert into tracking.role_bindings (principal_id, role, org_id) values (${people.bob}, 'viewer', ${orgs.evil}) returning id`
    cleanups.push(() => world.sql`delete from tracking.role_bindings where id = ${binding?.id}`)
    expect(await importing(['--file', file, ...rejects], { env: asBob() })).toMatchObject({ code: 0, stdout: '1 recorded, 30 there already, 0 dropped\n' })
    expect(await readRejects()).toEqual([])
    expect(await recorded()).toBe(31)
  })
})

describe('an import that is interrupted', () => {
  test('20 times by SIGKILL, at any moment, ends with each line recorded once and each bad line told once', async () => {
    // Given 8,000 lines: some are equal, some have ids or times, and every 1000th, and so 3 of the numbers, cannot be recorded
    const all = Array.from({ length: 8000 }, (_, n) => {
      if (n % 1000 === 500) return 'nonsense'
      const event = { event: 'Killed', channel, tags: { n: n % 3000 } }
      return JSON.stringify(n % 4 === 0 ? { ...event, event_id: uuidV7() } : n % 4 === 1 ? { ...event, timestamp: '2026-10-05T09:30:00Z' } : event)
    })
    const file = await writeText(all.join('\n'))
    // And an API to which some requests do not get through, and from which some answers do not
    let arrived = () => {}
    const gateway = await gate(async () => {
      arrived()
      await sleep(Math.random() * 20)
      return Math.random() < 0.1 ? 'is lost' : Math.random() < 0.1 ? 'loses its answer' : 'passes'
    })
    const env = { ...asDemo(), ACTORSCOPE_URL: gateway.url }
    const args = ['track', '--file', file, '--rejects', inFolder('rejects.jsonl')]

    // When it is killed again and again, a moment after its first or second request
    for (let kills = 0; kills < 20; kills++) {
      const running = start(args, { env })
      let left = 1 + Math.floor(Math.random() * 2)
      const due = new Promise<void>((done) => { arrived = () => { if (--left <= 0) done() } })
      await Promise.race([due, running.exited])
      await sleep(Math.random() * 60)
      running.process.kill('SIGKILL')
      await running.exited
    }

    // Then the last run ends it
    const ended = await run(args, { env })
    expect(ended).toMatchObject({ code: 1, stdout: expect.stringContaining('8 dropped') })
    const [rows] = await world.sql`select count(*)::int as count, count(distinct tags ->> 'n')::int as numbers from events where channel = ${channel}`
    expect(rows).toEqual({ count: 7992, numbers: 2997 })
    expect((await readRejects()).map(({ line }) => line)).toEqual([501, 1501, 2501, 3501, 4501, 5501, 6501, 7501])
  }, 240_000)

  test('by Ctrl-C exits with 130, says where it stopped, and goes on from there', async () => {
    const file = await write(lines(3000))
    const gateway = await gate((_, before) => (before < 2 ? 'passes' : new Promise<Fate>(() => {})))
    const running = start(['track', '--file', file], { env: { ...asDemo(), ACTORSCOPE_URL: gateway.url } })
    await expect.poll(() => gateway.bodies.length, { timeout: 60_000 }).toBe(3)
    running.process.kill('SIGINT')
    expect(await running.exited).toBe(130)
    expect(running.stderr()).toBe('Stopped after line 1,000: the same command goes on from there.\n')
    expect(await importing(['--file', file])).toMatchObject({ code: 0, stdout: '3,000 recorded, 0 there already, 0 dropped\n' })
    expect(await recorded()).toBe(3000)
  })
})

describe('an API that fails', () => {
  test('for a while does not lose or double a line', async () => {
    const fates: Fate[] = [{ status: 503 }, 'is lost', 'loses its answer', { status: 429, headers: { 'retry-after': '1' } }, { status: 502, body: '<html>' }, { status: 408 }]
    const arrivals: number[] = []
    const gateway = await gate((_, before) => {
      arrivals.push(Date.now())
      return (before % 2 === 0 ? fates[before / 2] : undefined) ?? 'passes'
    })
    const ended = await importing(['--file', await write(lines(2500))], { env: { ...asDemo(), ACTORSCOPE_URL: gateway.url } })
    expect(ended).toMatchObject({ code: 0, stdout: expect.stringMatching(/, 0 dropped\n$/) })
    expect(ended.stderr).toContain('trying again: ')
    expect(arrivals[7]! - arrivals[6]!).toBeGreaterThanOrEqual(1000) // as the answer asked for
    expect(await recorded()).toBe(2500)
  })

  test('with large requests is sent smaller ones, down to the event that is too large itself', async () => {
    const gateway = await gate((body) => (body.length > 20_000 ? { status: 413, body: 'Too large' } : 'passes'))
    const file = await write([...lines(500), { event: 'Large', tags: { pad: 'x'.repeat(21_000) } }, ...lines(500)])
    const ended = await importing(['--file', file], { env: { ...asDemo(), ACTORSCOPE_URL: gateway.url } })
    expect(ended).toMatchObject({ code: 1, stdout: '1,000 recorded, 0 there already, 1 dropped\n', stderr: expect.stringMatching(/^line 501: payload_too_large/) })
    expect(await recorded()).toBe(1000)
    // And what it has learned of the size is kept, so that few are refused
    expect(gateway.bodies.filter((body) => body.length > 20_000).length).toBeLessThan(20)
    expect(gateway.bodies.length).toBeLessThan(50)
  })

  test('with many events at once is sent fewer', async () => {
    const gateway = await gate((body) => (JSON.parse(body).v2.length > 100
      ? { status: 429, body: '{"code":"PT429","message":"rate_limited","details":"The limit is 100 events a minute.","hint":null}' } : 'passes'))
    const ended = await importing(['--file', await write(lines(400))], { env: { ...asDemo(), ACTORSCOPE_URL: gateway.url } })
    expect(ended).toMatchObject({ code: 0, stdout: '400 recorded, 0 there already, 0 dropped\n' })
    expect(ended.stderr).toContain('trying again: rate_limited: The limit is 100 events a minute.')
  })

  test('for longer than --retry-for ends the import, which goes on when it is run again', async () => {
    let fails = true
    const gateway = await gate((_, before) => (fails && before > 0 ? { status: 503 } : 'passes'))
    const file = await write(lines(1500))
    const env = { ...asDemo(), ACTORSCOPE_URL: gateway.url }
    const stopped = await importing(['--file', file, '--retry-for', '10ms'], { env })
    expect(stopped).toMatchObject({ code: 1, stdout: '' })
    expect(stopped.stderr).toMatch(/Stopped after line 500: the same command goes on from there\.\nunexpected_answer: The answer was 503\. .*\n$/)
    fails = false
    expect(await importing(['--file', file], { env })).toMatchObject({ code: 0, stdout: '1,500 recorded, 0 there already, 0 dropped\n' })
    expect(await recorded()).toBe(1500)
  })

  test('because of the credentials is not asked twice, and nothing is dropped', async () => {
    const gateway = await gate(() => 'passes')
    const file = await write(lines(1500))
    const refused = await importing(['--file', file], { env: { ACTORSCOPE_URL: gateway.url, ACTORSCOPE_API_KEY: 'as_local_revoked' } })
    expect(refused.code).toBe(1)
    expect(refused.stderr).toMatch(/^invalid_api_key: The API key that was sent is not valid\. \(.*\)\n$/)
    expect(gateway.bodies.length).toBe(1)
    expect(await importing(['--file', file])).toMatchObject({ code: 0, stdout: '1,500 recorded, 0 there already, 0 dropped\n' })
  })

  test('to answer for each event is no success', async () => {
    for (const body of ['{"results":[]}', '<html>Sign in</html>']) {
      const gateway = await gate(() => ({ status: 200, body }))
      const ended = await importing(['--file', await write(lines(3))], { env: { ...asDemo(), ACTORSCOPE_URL: gateway.url } })
      expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining('unexpected_answer: The API did not answer for every event.') })
    }
  })
})

describe('files', () => {
  test.each([
    ['that are not there', ['--file', 'nowhere.jsonl'], 'file_unreadable'],
    ['that are folders', ['--file', '.'], 'file_unreadable'],
    ['of progress that cannot be written', ['--resume', 'nowhere/progress'], 'resume_unwritable'],
    ['of progress that are something else', ['--resume', 'package.json'], 'resume_unreadable'],
    ['of rejects that cannot be written', ['--rejects', 'nowhere/rejects'], 'file_unwritable'],
  ])('%s are named in one line, and nothing is sent', async (_, args, code) => {
    const file = args[0] === '--file' ? [] : ['--file', await write(lines(3))]
    const ended = await importing([...file, ...args])
    expect(ended).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(new RegExp(`^${code}: .*\\(.*\\)\n$`)) })
    expect(await recorded()).toBe(0)
  })

  test.each([
    ['many lines', `${'x'.repeat(999)}\n`.repeat(1000), '300,000'],
    ['one line', 'x'.repeat(1_000_000), '1'],
  ])('of any size are read in the same memory: 300 MB in %s', async (_, chunk, dropped) => {
    const [watch, used] = [inFolder('watch.mjs'), inFolder('used')]
    await writeFile(watch, `import { writeFileSync } from 'node:fs'
      process.on('exit', () => writeFileSync(${JSON.stringify(used)}, String(process.resourceUsage().maxRSS)))`)
    const input = from(Array.from({ length: 300 }, () => Buffer.from(chunk)))
    const running = start(['track', '-'], { env: { ...asDemo(), NODE_OPTIONS: `--max-old-space-size=64 --import ${watch}` }, input })
    running.process.stderr?.removeAllListeners('data').resume()
    expect(await running.exited).toBe(1)
    expect(running.stdout()).toBe(`0 recorded, 0 there already, ${dropped} dropped\n`)
    expect(Number(await readFile(used, 'utf8'))).toBeLessThan(400_000)
  })

  test('are split into the same lines, however they come in pieces', async () => {
    const text = fc.array(fc.constantFrom('a', 'é', '\n', '\r\n', ' ', '\u2028'), { maxLength: 60 }).map((parts) => parts.join(''))
    await fc.assert(fc.asyncProperty(text, fc.array(fc.nat(20)), async (written, cuts) => {
      const bytes = Buffer.from(written)
      const pieces: Buffer[] = []
      let at = 0
      for (const cut of cuts) { pieces.push(bytes.subarray(at, at + cut)); at = Math.min(bytes.length, at + cut) }
      pieces.push(bytes.subarray(at))
      const seen: string[] = []
      for await (const line of linesOf(from(pieces), 1000)) seen.push(line.bytes.toString())
      const expected = written.split('\n')
      if (expected.at(-1) === '') expected.pop()
      expect(seen).toEqual(expected.map((line) => line.replace(/^[ \r]+|[ \r]+$/g, '')))
    }))
  })
})

test('places among equals are exact and distinct, and distinct also where there is no memory for more of them', () => {
  const hashes = Array.from({ length: 250_000 }, (_, n) => createHash('sha256').update(String(n)).digest())
  const repeats = new Repeats()
  const places = [0, 1, 2].map(() => hashes.map((hash) => repeats.placeOf(hash)))
  expect(places[0]?.every((place) => place === 0)).toBe(true)
  expect([1, 2].map((round) => places[round]?.slice(0, 200_000).every((place) => place === round))).toEqual([true, true])
  expect(hashes.every((_, n) => new Set(places.map((round) => round[n])).size === 3)).toBe(true)
})

async function* from(pieces: Buffer[]): AsyncGenerator<Buffer> {
  yield* pieces
}

function lines(count: number, more: object = {}): { event: string }[] {
  return Array.from({ length: count }, (_, n) => ({ event: 'Imported', channel, tags: { n }, ...more }))
}

async function write(events: object[], name = 'events.jsonl'): Promise<string> {
  return writeText(asText(events), name)
}

function asText(events: object[]): string {
  return events.map((event) => `${JSON.stringify({ channel, ...event })}\n`).join('')
}

async function writeText(text: string | Buffer, name = 'events.jsonl'): Promise<string> {
  await writeFile(inFolder(name), text)
  return inFolder(name)
}

const inFolder = (name: string): string => join(folder.path, name)
const asDemo = (): NodeJS.ProcessEnv => ({ ACTORSCOPE_URL: world.api.url, ACTORSCOPE_API_KEY: 'as_local_demo_app' })
const asBob = (): NodeJS.ProcessEnv => ({ ACTORSCOPE_URL: world.api.url, ACTORSCOPE_EMAIL: 'bob@acme.test', ACTORSCOPE_PASSWORD: 'password' })

function importing(args: string[], options: RunOptions = {}) {
  return run(['track', ...args], { env: asDemo(), ...options })
}

async function gate(fate: (body: string, before: number) => Fate | Promise<Fate>): Promise<Gateway> {
  const gateway = await startGateway(world.api.url, fate)
  cleanups.push(gateway.stop)
  return gateway
}

async function recorded(): Promise<number> {
  return (await world.sql`select from events where channel = ${channel}`).length
}

async function readRejects(): Promise<{ line: number, code: string, text: string }[]> {
  const text = await readFile(inFolder('rejects.jsonl'), 'utf8')
  return text.trim().split('\n').filter(Boolean).map((line) => JSON.parse(line))
}
