import { guarded, KEPT_DAYS, timeOf, type KeptEvent, type PersistentQueue, type Report } from './persistent-queue.ts'
import { TrackingError } from './tracking-error.ts'

/**
 * Keeps events in a browser's `localStorage` until the database has them, so that they outlive the page, whether it
 * was left, closed or crashed: the next page that the same person opens sends them. Every event is an item of its
 * own, so several tabs need no lock; what two tabs send both, the database records once. An event is kept for 30
 * days at most; where the storage is full, events are held in memory alone (`storage_failed`).
 *
 * @param options.name begins the names of the items; `actorscope`
 * @param options.storage `localStorage`
 */
export function browserQueue(options: { name?: string, storage?: Storage } = {}): PersistentQueue {
  const prefix = `${options.name ?? 'actorscope'}:`
  const out = `${prefix}opted-out`
  // Where a page may not use it, already to name it throws.
  const storage = () => options.storage ?? (globalThis as unknown as { localStorage: Storage }).localStorage
  const mine = new Set<string>()
  let report: Report

  const keys = () => Array.from({ length: storage().length }, (_, i) => storage().key(i) ?? '')
    .filter((name) => name.startsWith(prefix) && name !== out)
    .map((name) => name.slice(prefix.length))
    .sort()
  const read = (key: string): KeptEvent | undefined => {
    try {
      return { ...JSON.parse(storage().getItem(prefix + key)!), key }
    } catch {
      storage().removeItem(prefix + key) // nothing that was put there by this
    }
  }

  return guarded({
    open(to) { report = to },
    put({ key, ...event }) {
      mine.add(key)
      storage().setItem(prefix + key, JSON.stringify(event))
    },
    remove(key) {
      mine.delete(key)
      storage().removeItem(prefix + key)
    },
    release(key) {
      mine.delete(key)
    },
    adopt(identity, max) {
      const oldest = Date.now() - KEPT_DAYS * 86_400_000
      const found: KeptEvent[] = []
      for (const key of keys()) {
        const event = mine.has(key) ? undefined : read(key)
        if (!event) continue
        if (timeOf(key) < oldest) {
          storage().removeItem(prefix + key)
          report(new TrackingError('expired'), event.text)
        } else if (found.length < max && (!event.identity || event.identity === identity)) {
          mine.add(key)
          found.push(event)
        }
      }
      return found
    },
    clear() {
      mine.clear()
      for (const key of keys()) storage().removeItem(prefix + key)
    },
    get optedOut() { return storage().getItem(out) !== null },
    set optedOut(isOut) {
      if (isOut) storage().setItem(out, '1')
      else storage().removeItem(out)
    },
  })
}

/** What is used of the DOM's `Storage`. */
export type Storage = {
  readonly length: number
  key(index: number): string | null
  getItem(name: string): string | null
  setItem(name: string, value: string): void
  removeItem(name: string): void
}
