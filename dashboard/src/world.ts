import type { SupabaseClient } from '@supabase/supabase-js'
import { createContext } from 'preact'
import { useContext, useEffect, useMemo, useState } from 'preact/hooks'
import type { Config } from './config.ts'
import { filtersOf, type Filters } from './filters.ts'
import { ask, Problem, type App, type Org, type Question } from './questions.ts'
import type { Route } from './route.ts'

/** What every section knows: who looks, what there is, and where they are. */
export type World = {
  config: Config
  supabase: SupabaseClient
  viewer: { id: string, email: string }
  orgs: Org[]
  apps: App[]
  route: Route
  /** Told when the API takes the session for over. */
  sessionOver(): void
}

export const WorldContext = createContext<World>(undefined as never)
export const useWorld = (): World => useContext(WorldContext)

/** The filters that the address stands for; the same object until it changes. */
export function useFilters(): Filters {
  const { route } = useWorld()
  const filters = filtersOf(route)
  return useMemo(() => filters, [JSON.stringify(filters)])
}

/** Where an answer stands. Rows of the question before are kept until there are new ones. */
export type Answer<Row> = {
  rows?: Row[]
  problem?: Problem
  isLoading: boolean
  retry(): void
}

/** Puts a question to the database, again whenever it is another one; none while it is undefined. */
export function useAnswer<Row>(question: Question<Row> | undefined): Answer<Row> {
  const { supabase, sessionOver } = useWorld()
  const [state, setState] = useState<Omit<Answer<Row>, 'retry'>>({ isLoading: question !== undefined })
  const [tries, setTries] = useState(0)
  const key = question && JSON.stringify(question)
  useEffect(() => {
    if (!question) {
      setState({ isLoading: false })
      return
    }
    const leaving = new AbortController()
    setState(({ rows }) => ({ rows, isLoading: true }))
    ask(supabase, question, leaving.signal).then(
      (rows) => { if (!leaving.signal.aborted) setState({ rows, isLoading: false }) },
      (problem: Problem) => {
        if (leaving.signal.aborted) return
        if (problem.isSessionOver) sessionOver()
        else setState({ problem, isLoading: false })
      })
    return () => leaving.abort()
  }, [key, tries])
  return { ...state, retry: () => setTries((n) => n + 1) }
}
