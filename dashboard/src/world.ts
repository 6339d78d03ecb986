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
  // What was answered goes with its answer: from its first moment on, another question is known to be awaited.
  const [state, setState] = useState<{ answered?: string, rows?: Row[], problem?: Problem }>({})
  const [tries, setTries] = useState(0)
  const asked = question && JSON.stringify([question, tries])
  useEffect(() => {
    if (!question) {
      setState({})
      return
    }
    const leaving = new AbortController()
    ask(supabase, question, leaving.signal).then(
      (rows) => { if (!leaving.signal.aborted) setState({ answered: asked, rows }) },
      (problem: Problem) => {
        if (leaving.signal.aborted) return
        if (problem.isSessionOver) sessionOver()
        else setState({ answered: asked, problem })
      })
    return () => leaving.abort()
  }, [asked])
  const isLoading = asked !== state.answered
  return { rows: state.rows, problem: isLoading ? undefined : state.problem, isLoading, retry: () => setTries((n) => n + 1) }
}
