import { createHash, randomBytes } from 'node:crypto'
import {
  closeSync, constants, existsSync, mkdirSync, openSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync,
  statSync, utimesSync, writeFileSync, writeSync,
} from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { guarded, KEPT_DAYS, timeOf, type KeptEvent, type PersistentQueue, type Report } from './persistent-queue.ts'
import { TrackingError } from './tracking-error.ts'

/** A file that grew so large is left as it is, and another begun; it goes when the last of its events has gone. */
const FILE_BYTES = 256 * 1024
/** A living program touches its files so often, … */
const HEARTBEAT_MS = 15_000
/** … and whoever has not for so long is taken for dead, where nothing better tells. */
const DEAD_MS = 60_000

export type FileQueueOptions = {
  /** So many bytes are kept at most: beyond, the oldest files of dead programs go, and new events stay in memory. 64 MiB. */
  maxBytes?: number
}

/**
 * Keeps events in files of a folder until the database has them, so that they outlive their program: killed at any
 * moment, it leaves them to the next one of the same identity that begins, or that runs beside it. Any number of
 * programs may use the folder at once, also on several machines or in several containers. There is no lock, and
 * nobody waits for anybody. An event is kept for 30 days at most. It survives the end of its program, not a power
 * cut: files are written, not flushed to the disk.
 *
 * @param folder is made, closed to other users, where it is missing
 */
export function fileQueue(folder: string, { maxBytes = 64 * 1024 * 1024 }: FileQueueOptions = {}): PersistentQueue {
  return guarded(new Folder(folder, maxBytes))
}

// Every program writes files of its own: `<machine>.<process>.<random>.<number>.jsonl`. A line is an event, or `-` and
// the key of one that has gone; of two lines about an event the later one holds. Lines begin with a line feed, so that
// one torn off by a crash spoils no other, and a torn one is no JSON.
//
// Whoever finds the file of a dead program takes it over by renaming it, in which one of several succeeds. Should its
// owner have been asleep and not dead, nothing is lost: it finds its file gone and begins another; and events that both
// send are recorded once.
class Folder implements PersistentQueue {
  readonly #token = `${machine()}.${process.pid}.${randomBytes(6).toString('hex')}`
  /** The files that are looked after here, and the events in them. */
  readonly #files = new Map<string, Set<string>>()
  /** The file that each event is in. */
  readonly #places = new Map<string, string>()
  /** The events that the tracker has. */
  readonly #mine = new Set<string>()
  #current: { path: string, bytes: number } | undefined
  #begun = 0
  #timer: NodeJS.Timeout | undefined
  #report: Report = () => {}

  constructor(private readonly folder: string, private readonly maxBytes: number) {}

  open(report: Report): void {
    this.#report = report
    living.add(this.#token)
    mkdirSync(this.folder, { recursive: true, mode: 0o700 })
  }

  put(event: KeptEvent): void {
    this.#mine.add(event.key)
    const line = JSON.stringify(event)
    const place = this.#places.get(event.key)
    if (place && this.#append(place, line)) return
    const path = this.#begin(line)
    this.#place(event.key, path)
  }

  /** @returns the file that the line was written to: the current one, or another where that is large or gone. */
  #begin(line: string): string {
    if (this.#current && this.#current.bytes < FILE_BYTES && this.#append(this.#current.path, line)) {
      this.#current.bytes += line.length
      return this.#current.path
    }
    if (this.#files.size * FILE_BYTES >= this.maxBytes) throw new Error(`${this.folder} is full.`)
    const path = this.#nextPath()
    append(path, line, constants.O_CREAT | constants.O_EXCL)
    this.#current = { path, bytes: line.length }
    return path
  }

  #nextPath(): string {
    return join(this.folder, `${this.#token}.${++this.#begun}.jsonl`)
  }

  #place(key: string, path: string): void {
    this.#places.set(key, path)
    const keys = this.#files.get(path) ?? new Set()
    this.#files.set(path, keys.add(key))
  }

  /** @returns whether the file is still there; if not, somebody else looks after what is in it. */
  #append(path: string, line: string): boolean {
    if (append(path, line)) return true
    for (const key of this.#files.get(path) ?? []) this.#places.delete(key)
    this.#files.delete(path)
    return false
  }

  remove(key: string): void {
    this.#mine.delete(key)
    const path = this.#places.get(key)
    if (!path || !this.#append(path, `-${key}`)) return
    this.#places.delete(key)
    const keys = this.#files.get(path)
    keys?.delete(key)
    if (keys?.size === 0) this.#discard(path)
  }

  #discard(path: string): void {
    if (path === this.#current?.path) this.#current = undefined
    this.#files.delete(path)
    // Had it been taken from somebody who was only asleep, something may have been added at that very moment.
    const late = [...readEvents(path).keys()]
    if (late.length === 0) rmSync(path, { force: true })
    for (const key of late) this.#place(key, path)
  }

  release(key: string): void {
    this.#mine.delete(key)
  }

  adopt(identity: string, max: number): KeptEvent[] {
    const isWanted = (event: KeptEvent) => !event.identity || event.identity === identity
    for (const path of this.#abandoned()) {
      const events = [...readEvents(path).values()]
      if (events.length === 0 || events.some((event) => isWanted(event) || isExpired(event))) this.#take(path)
    }
    const found = [...this.#files]
      .filter(([, keys]) => [...keys].some((key) => !this.#mine.has(key)))
      .flatMap(([path]) => [...readEvents(path).values()])
      .filter((event) => !this.#mine.has(event.key) && isWanted(event))
      .sort((a, b) => a.key < b.key ? -1 : 1)
      .slice(0, Math.max(max, 0))
    for (const { key } of found) this.#mine.add(key)
    return found
  }

  /** The files that nobody living looks after, as far as they are within bounds: the oldest beyond them go. */
  #abandoned(): string[] {
    const files = readdirSync(this.folder)
      .filter((name) => name.endsWith('.jsonl') && !name.startsWith(`${this.#token}.`))
      .map((name) => ({ name, path: join(this.folder, name), stats: statSync(join(this.folder, name), { throwIfNoEntry: false }) }))
      .filter(({ name, stats }) => stats && isDead(name, stats.mtimeMs))
      .sort((a, b) => b.stats!.mtimeMs - a.stats!.mtimeMs)
    let bytes = 0
    const [within, beyond] = [[] as string[], [] as string[]]
    for (const { path, stats } of files) ((bytes += stats!.size) > this.maxBytes ? beyond : within).push(path)
    for (const path of beyond.reverse()) this.#drop(path)
    return within
  }

  #take(path: string): void {
    const taken = this.#nextPath()
    if (!rename(path, taken)) return
    touch(taken)
    for (const event of readEvents(taken).values()) {
      this.#place(event.key, taken)
      if (!isExpired(event)) continue
      this.remove(event.key)
      this.#report(new TrackingError('expired'), event.text)
    }
    if (!this.#files.has(taken)) rmSync(taken, { force: true })
  }

  #drop(path: string): void {
    const taken = this.#nextPath()
    if (!rename(path, taken)) return
    for (const { text } of readEvents(taken).values()) this.#report(new TrackingError('queue_full'), text)
    rmSync(taken, { force: true })
  }

  clear(): void {
    for (const path of [...this.#files.keys(), ...this.#abandoned()]) rmSync(path, { force: true })
    this.#files.clear()
    this.#places.clear()
    this.#mine.clear()
    this.#current = undefined
  }

  get optedOut(): boolean {
    return existsSync(join(this.folder, 'opted-out'))
  }

  set optedOut(isOut: boolean) {
    if (isOut) writeFileSync(join(this.folder, 'opted-out'), '')
    else rmSync(join(this.folder, 'opted-out'), { force: true })
  }

  watch(adopt: () => void): void {
    let beats = 0
    this.#timer = setInterval(() => {
      for (const path of this.#files.keys()) touch(path)
      if (++beats % (DEAD_MS / HEARTBEAT_MS) === 0) adopt()
    }, HEARTBEAT_MS).unref()
  }

  close(): void {
    clearInterval(this.#timer)
    living.delete(this.#token)
  }
}

/** The folders' tokens that are in use in this process. */
const living = new Set<string>()

// A process's id says something only where processes are the same: on the same machine, in the same container.
let known: string | undefined
function machine(): string {
  return known ??= createHash('sha256').update(unlessRefused(hostname) + unlessRefused(() => readlinkSync('/proc/self/ns/pid'))).digest('hex').slice(0, 12)
}

// Only Linux has namespaces; Deno asks for permission.
function unlessRefused(read: () => string): string {
  try {
    return read()
  } catch {
    return ''
  }
}

// Of a process that is alive, the heartbeat decides: its id may have been another's.
function isDead(name: string, touchedAt: number): boolean {
  const [where, pid, random] = name.split('.')
  if (where === machine()) {
    if (Number(pid) === process.pid) return !living.has(`${where}.${pid}.${random}`)
    if (!isAlive(Number(pid))) return true
  }
  return Date.now() - touchedAt > DEAD_MS
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}

/** The events in a file that have not gone, by their keys; none, where there is no such file. */
function readEvents(path: string): Map<string, KeptEvent> {
  const events = new Map<string, KeptEvent>()
  for (const line of (unlessGone(() => readFileSync(path, 'utf8')) ?? '').split('\n')) {
    if (line.startsWith('-')) events.delete(line.slice(1))
    const event = line.startsWith('{') && parse(line)
    if (event) events.set(event.key, event)
  }
  return events
}

function parse(line: string): KeptEvent | undefined {
  try {
    return JSON.parse(line)
  } catch {
    return undefined // torn off by a crash
  }
}

const isExpired = ({ key }: KeptEvent): boolean => timeOf(key) < Date.now() - KEPT_DAYS * 86_400_000

/** @returns whether the file is there; without further flags it is not made. */
function append(path: string, line: string, flags = 0): boolean {
  const file = unlessGone(() => openSync(path, constants.O_WRONLY | constants.O_APPEND | flags, 0o600))
  if (file === undefined) return false
  try {
    const bytes = Buffer.from(`\n${line}`)
    for (let written = 0; written < bytes.length;) written += writeSync(file, bytes, written)
  } finally {
    closeSync(file)
  }
  return true
}

const rename = (from: string, to: string): boolean => unlessGone(() => renameSync(from, to) ?? true) ?? false
const touch = (path: string): void => unlessGone(() => utimesSync(path, new Date(), new Date()))

function unlessGone<T>(act: () => T): T | undefined {
  try {
    return act()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}
