import { TrackingError } from './tracking-error.ts'

/** An event as a persistent queue keeps it. */
export type KeptEvent = {
  /** Unique; sorts by the time of the event. */
  readonly key: string
  /** Whose event it is; empty, while nobody was there whose it could be. */
  readonly identity: string
  /** The payload, as JSON. */
  readonly text: string
  /** Whether it waits for an organization. */
  readonly groupless: boolean
}

/** Told of what went wrong; with the event's payload, as JSON, where one was lost. */
export type Report = (error: TrackingError, event?: string) => void

/** Keeps events until the database has them, so that they outlive a crash. Never throws: `guarded` sees to that. */
export type PersistentQueue = {
  /** Begins. */
  open(report: Report): void
  /** Keeps an event, or what became of it. It is safe once this returns. */
  put(event: KeptEvent): void
  /** Lets an event go. */
  remove(key: string): void
  /** Leaves an event to whoever adopts it. */
  release(key: string): void
  /**
   * Takes over events of somebody, and those of nobody yet, which nobody looks after: the oldest first, `max` at most.
   * What was put or adopted is looked after until it is removed or released.
   */
  adopt(identity: string, max: number): KeptEvent[]
  /** Lets everything go. */
  clear(): void
  /** Whether `optOut` was called; remembered. */
  optedOut: boolean
  /** Has a function called from time to time, where others may leave events behind meanwhile. */
  watch?(adopt: () => void): void
  /** Leaves to others what is there. */
  close?(): void
}

/** Days that an event is kept at most. */
export const KEPT_DAYS = 30

/**
 * Makes a persistent queue of one whose functions may throw: what they throw is reported as `storage_failed`, once
 * until it has gone well again, and the tracker goes on in memory.
 */
export function guarded(storage: PersistentQueue): PersistentQueue {
  let report: Report = () => {}
  let isFailing = false
  const safely = <T>(otherwise: T, act: () => T): T => {
    try {
      const result = act()
      isFailing = false
      return result
    } catch (cause) {
      if (!isFailing) report(new TrackingError('storage_failed', { details: (cause as Error)?.message, cause }))
      isFailing = true
      return otherwise
    }
  }
  return {
    open(to) {
      report = to
      safely(undefined, () => storage.open(to))
    },
    put: (event) => safely(undefined, () => storage.put(event)),
    remove: (key) => safely(undefined, () => storage.remove(key)),
    release: (key) => safely(undefined, () => storage.release(key)),
    adopt: (identity, max) => safely([], () => storage.adopt(identity, max)),
    clear: () => safely(undefined, () => storage.clear()),
    get optedOut() { return safely(false, () => storage.optedOut) },
    set optedOut(out) { safely(undefined, () => { storage.optedOut = out }) },
    watch: (adopt) => safely(undefined, () => storage.watch?.(adopt)),
    close: () => safely(undefined, () => storage.close?.()),
  }
}

/** The time that a key carries, in milliseconds since 1970. */
export const timeOf = (key: string): number => Number.parseInt(key.slice(0, 8) + key.slice(9, 13), 16)
