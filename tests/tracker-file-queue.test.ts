import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawn } from 'node:child_process'
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { eventIds } from '../src/event-id.ts'
import { fileQueue } from '../src/file-queue.ts'
import type { KeptEvent, PersistentQueue } from '../src/tracker.ts'

let folder: string
let open: PersistentQueue[]
let told: string[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'actorscope-test-'))
  open = []
  told = []
})
afterEach(() => {
  for (const queue of open) queue.close?.()
  rmSync(folder, { recursive: true, force: true })
})

const newKey = eventIds()
const event = (text: string, identity = 'user:ada', at = Date.now()): KeptEvent => ({ key: newKey(at), identity, text, groupless: false })
function start(options?: Parameters<typeof fileQueue>[1]): PersistentQueue {
  const queue = fileQueue(folder, options)
  queue.open((error, text) => told.push([error.code, text ?? error.details].join(' ')))
  open.push(queue)
  return queue
}
const files = () => readdirSync(folder).map((name) => join(folder, name))
const [onlyFile] = [() => files()[0]!]
const textsOf = (events: KeptEvent[]) => events.map(({ text }) => text)

/** The id of a process that has ended. */
async function deadProcess(): Promise<number> {
  const child = spawn(process.execPath, ['-e', ''])
  await new Promise((done) => child.once('close', done))
  return child.pid!
}

/** What a process on this machine would have left, were `pid` its id. */
function leaveBehind(pid: number, lines: string[], age = 0): string {
  const queue = fileQueue(join(folder, 'probe'))
  queue.open(() => {})
  queue.put(event('probe'))
  const [machine] = readdirSync(join(folder, 'probe'))[0]!.split('.')
  queue.close?.()
  rmSync(join(folder, 'probe'), { recursive: true })
  return leaveOn(machine!, pid, lines, age)
}
function leaveOn(machine: string, pid: number, lines: string[], age = 0): string {
  const path = join(folder, `${machine}.${pid}.${Math.random().toString(16).slice(2)}.1.jsonl`)
  writeFileSync(path, lines.map((line) => `\n${line}`).join(''))
  const at = new Date(Date.now() - age)
  utimesSync(path, at, at)
  return path
}

test('an event is in a file before put returns, and the file goes with the last event', () => {
  const queue = start()
  const [a, b] = [event('{"a":1}'), event('{"b":"\\n"}')]
  queue.put(a)
  expect(readFileSync(onlyFile(), 'utf8')).toContain(JSON.stringify(a))
  queue.put(b)
  expect(files()).toHaveLength(1)
  queue.remove(a.key)
  expect(files()).toHaveLength(1)
  queue.remove(b.key)
  expect(files()).toEqual([])
  queue.remove(b.key)
  expect(told).toEqual([])
})

test('only the user who made it may look into it', () => {
  rmSync(folder, { recursive: true })
  start().put(event('{}'))
  expect(statSync(folder).mode & 0o777).toBe(0o700)
  expect(statSync(onlyFile()).mode & 0o777).toBe(0o600)
})

test('what is put twice is the later of the two', () => {
  const queue = start()
  const first = event('{"a":1}', '')
  queue.put(first)
  queue.put({ ...first, identity: 'user:ada', text: '{"a":2}' })
  queue.close?.()
  expect(start().adopt('user:ada', 10)).toEqual([{ ...first, identity: 'user:ada', text: '{"a":2}' }])
})

test('what a closed queue leaves is adopted by the person whose it is, oldest first, as much as there is room for', () => {
  const queue = start()
  const mine = [1, 2, 3].map((n) => event(`mine ${n}`))
  for (const one of mine) queue.put(one)
  queue.put(event('theirs', 'user:eve'))
  queue.put(event('nobody\'s', ''))
  queue.close?.()

  const next = start()
  expect(textsOf(next.adopt('user:ada', 2))).toEqual(['mine 1', 'mine 2'])
  expect(textsOf(next.adopt('user:ada', 10))).toEqual(['mine 3', 'nobody\'s'])
  expect(next.adopt('user:ada', 10)).toEqual([])
  expect(textsOf(next.adopt('user:eve', 10))).toEqual(['theirs'])
  next.release(mine[0]!.key)
  expect(textsOf(next.adopt('user:ada', 10))).toEqual(['mine 1'])
})

test('what is nobody\'s that is there stays for when they come', () => {
  const queue = start()
  queue.put(event('theirs', 'user:eve'))
  queue.close?.()
  expect(start().adopt('user:ada', 10)).toEqual([])
  expect(textsOf(start().adopt('user:eve', 10))).toEqual(['theirs'])
})

test('two that try to take the same file get each event once', () => {
  for (let i = 0; i < 20; i++) {
    const queue = start()
    queue.put(event(`event ${i}`))
    queue.close?.()
  }
  const [a, b] = [start(), start()]
  const taken = [...a.adopt('user:ada', 7), ...b.adopt('user:ada', 7), ...a.adopt('user:ada', 20), ...b.adopt('user:ada', 20)]
  expect(textsOf(taken).sort()).toEqual(Array.from({ length: 20 }, (_, i) => `event ${i}`).sort())
})

test('what a living program has is left to it: in this process, and in another', () => {
  start().put(event('here'))
  const other = start()
  expect(other.adopt('user:ada', 10)).toEqual([])
  leaveBehind(process.ppid, [JSON.stringify(event('in another'))])
  expect(other.adopt('user:ada', 10)).toEqual([])
})

test('what a dead process left is adopted at once, also where this one has got its id', async () => {
  leaveBehind(await deadProcess(), [JSON.stringify(event('dead'))])
  leaveBehind(process.pid, [JSON.stringify(event('same id'))])
  expect(textsOf(start().adopt('user:ada', 10))).toEqual(['dead', 'same id'])
})

test('what another machine or another program with the dead one\'s id touches no more is adopted after a minute', () => {
  leaveBehind(process.ppid, [JSON.stringify(event('id of another'))], 61_000)
  leaveOn('another', 1, [JSON.stringify(event('another machine'))], 61_000)
  leaveOn('another', 2, [JSON.stringify(event('alive'))], 10_000)
  expect(textsOf(start().adopt('user:ada', 10))).toEqual(['id of another', 'another machine'])
})

test('a line torn off at any byte costs no other event', () => {
  const [a, b, c] = [event('{"a":"ä"}'), event('{"b":"😀"}'), event('{"c":1}')]
  const bytes = Buffer.from(`\n${JSON.stringify(a)}\n${JSON.stringify(b)}\n-${a.key}`)
  fc.assert(fc.property(fc.integer({ min: 0, max: bytes.length }), (length) => {
    const path = leaveOn('dead', 1, [], 100_000)
    writeFileSync(path, bytes.subarray(0, length))
    // Given that a program which was not dead after all writes on
    appendFileSync(path, `\n${JSON.stringify(c)}`)
    const at = new Date(Date.now() - 100_000)
    utimesSync(path, at, at)

    const next = start()
    const found = textsOf(next.adopt('user:ada', 10))
    next.clear()
    next.close?.()
    const whole = [a, b].filter((one) => length >= bytes.indexOf(one.key) - '{"key":"'.length + Buffer.byteLength(JSON.stringify(one)))
    const gone = length === bytes.length ? [a] : []
    expect(found).toEqual([...whole.filter((one) => !gone.includes(one)), c].map(({ text }) => text))
  }), { numRuns: 400 })
  expect(told).toEqual([])
})

test('a program that was only asleep loses nothing when its file is taken', () => {
  // Given a program that slept for long, and another that took its file
  const sleeper = start()
  const [before, after] = [event('before'), event('after')]
  sleeper.put(before)
  const path = onlyFile()
  const at = new Date(Date.now() - 100_000)
  utimesSync(path, at, at)
  const taker = join(folder, 'other.1.x.1.jsonl')
  writeFileSync(taker, readFileSync(path))
  rmSync(path)

  // When it wakes up
  sleeper.put(after)
  sleeper.put({ ...before, identity: 'user:ada', text: 'before, put again' })
  sleeper.remove(before.key)
  sleeper.close?.()

  // Then what it tracks since is in a file of its own
  rmSync(taker)
  expect(textsOf(start().adopt('user:ada', 10))).toEqual(['after'])
  expect(told).toEqual([])
})

test('what is added to a file at the very moment that it is taken is not lost', () => {
  const sleeper = start()
  sleeper.put(event('before'))
  sleeper.close?.()
  const taker = start()
  const [taken] = taker.adopt('user:ada', 10)
  appendFileSync(onlyFile(), `\n${JSON.stringify(event('late'))}`)
  taker.remove(taken!.key)
  expect(textsOf(taker.adopt('user:ada', 10))).toEqual(['late'])
})

test('many events take several files, each of which goes when its own have gone', () => {
  const queue = start()
  const events = Array.from({ length: 600 }, () => event('x'.repeat(1_000)))
  for (const one of events) queue.put(one)
  expect(files().length).toBe(3)
  for (const { key } of events.slice(0, 300)) queue.remove(key)
  expect(files().length).toBe(2)
  for (const { key } of events.slice(300)) queue.remove(key)
  expect(files()).toEqual([])
})

test('it is bounded: new events stay in memory, and the oldest files of the dead go', () => {
  const maxBytes = 600_000
  const queue = start({ maxBytes })
  for (let i = 0; i < 1_000; i++) queue.put(event('x'.repeat(1_000)))
  expect(files().length).toBe(3)
  expect(told).toEqual([`storage_failed ${folder} is full.`])
  queue.clear()
  expect(files()).toEqual([])

  told = []
  for (let i = 0; i < 4; i++) leaveOn('dead', i, [JSON.stringify(event(`${i} ${'x'.repeat(200_000)}`))], 100_000 - i * 1_000)
  expect(start({ maxBytes }).adopt('user:ada', 10).map(({ text }) => text.slice(0, 1))).toEqual(['2', '3'])
  expect(told.map((line) => line.slice(0, 'queue_full 0'.length))).toEqual(['queue_full 0', 'queue_full 1'])
})

test('an event is kept for 30 days, and that it went is told', () => {
  const days = 86_400_000
  leaveOn('dead', 1, [
    JSON.stringify(event('too old', 'user:eve', Date.now() - 31 * days)), JSON.stringify(event('old', 'user:eve', Date.now() - 29 * days))], 100_000)
  const queue = start()
  expect(queue.adopt('user:ada', 10)).toEqual([])
  expect(told).toEqual(['expired too old'])
  expect(textsOf(queue.adopt('user:eve', 10))).toEqual(['old'])
})

test('a folder that cannot be written to is told once, and does not throw', () => {
  writeFileSync(join(folder, 'file'), '')
  const queue = fileQueue(join(folder, 'file', 'folder'))
  open.push(queue)
  queue.open(({ code }) => told.push(code))
  for (let i = 0; i < 3; i++) queue.put(event('{}'))
  expect(queue.adopt('user:ada', 10)).toEqual([])
  expect(queue.optedOut).toBe(false)
  queue.optedOut = true
  queue.clear()
  expect(told).toEqual(['storage_failed', 'storage_failed'])
})
